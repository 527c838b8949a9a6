"""`qwen-pack lab`: the machines that `--on` reaches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import click

from packager.cli.options import Size
from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.errors import ExitCode
from packager.lab.seen import Seen


@click.group("lab")
def command() -> None:
    """Other machines to measure on: their names, what they are, what is kept there.

    \b
    qwen-pack lab add pi5 ssh://pi@pi5
    qwen-pack lab list
    qwen-pack bench PACKAGE --on pi5
    """


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The named machines, the Android devices that adb lists, and which of them answer."""
    from packager.lab.machines import path
    from packager.units import human_bytes

    seen = everybody()
    if as_json:
        emit_json("lab-list", {"file": str(path()), "machines": [asdict(row) for row in seen]})
        return
    if not seen:
        say("No machine has a name yet, and adb lists none.")
        say("Give one a name: qwen-pack lab add pi5 ssh://pi@pi5")
        return
    emit_table(
        "Machines",
        ("name", "address", "is", "memory", "processor"),
        [
            (
                row.name or "-",
                row.address,
                row.device if row.reached else row.error,
                human_bytes(row.memory_bytes) if row.memory_bytes else "",
                row.architecture,
            )
            for row in seen
        ],
    )
    for row in seen:
        if row.hint:
            narrate(f"{row.label}: {row.hint}")


def everybody(start_adb: bool = True) -> list[Seen]:
    """The machines that have a name and the Android devices that adb lists, all asked at once;
    without `start_adb` only where its server runs already. Raises PackError where the file of names
    is not one."""
    from packager.lab.machines import machines
    from packager.lab.transport import adb_runs, android_devices

    named = machines()
    phones = android_devices(named.values()) if start_adb or adb_runs() else []
    rows = [*named.items(), *(("", address) for address in phones)]
    if not rows:
        return []
    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(lambda row: _look(*row), rows))


def _look(name: str, address: str) -> Seen:
    """Reach a machine and read who it is; nothing runs there but a shell."""
    from packager.cli.reach import identify
    from packager.device.identity import devices_of
    from packager.errors import PackError
    from packager.lab.snapshot import take
    from packager.lab.transport import parse
    from packager.scratch import temporary_folder
    from targets import registry

    try:
        with temporary_folder() as held:
            snapshot = take(parse(address), held)
            found = identify(snapshot)
            device = " / ".join(dict.fromkeys(found.names)) or snapshot.system
    except PackError as error:
        return Seen(name, address, False, error=error.message, hint=error.hint)
    known = tuple(target.name for target in devices_of(found, registry.targets()))
    return Seen(
        name, address, True, device, found.memory_bytes, snapshot.architecture, targets=known
    )


@command.command("add")
@click.argument("name")
@click.argument("address")
@json_option
def add_command(name: str, address: str, as_json: bool) -> None:
    """Give the machine at ADDRESS a NAME for --on."""
    from packager.lab.machines import add

    file = add(name, address)
    if as_json:
        emit_json("lab-add", {"file": str(file), "name": name, "address": address})
    else:
        say(f"{name} is {address}, in {file}.")


@command.command("remove")
@click.argument("name")
@json_option
def remove_command(name: str, as_json: bool) -> None:
    """Forget the NAME of a machine. Nothing on the machine changes."""
    from packager.lab.machines import remove

    file = remove(name)
    if as_json:
        emit_json("lab-remove", {"file": str(file), "name": name})
    else:
        say(f"{name} has no address any more, in {file}.")


@command.command("clean")
@click.argument("machine")
@click.option(
    "--keep",
    type=Size(),
    default=0,
    metavar="SIZE",
    help="Keep this much of what was used last, such as 4G; nothing by default.",
)
@json_option
def clean_command(machine: str, keep: int, as_json: bool) -> int:
    """Remove the models, agents and Python environments that measurements left on MACHINE, a name
    or an address.

    The folders that were not used for longest are removed first. Nothing else on the machine is
    touched.
    """
    from packager.lab.machines import address_of
    from packager.lab.stored import remove, stored, to_remove
    from packager.lab.transport import parse
    from packager.units import human_bytes

    transport = parse(address_of(machine))
    rows = stored(transport)
    gone = to_remove(rows, keep)
    remove(transport, gone)
    freed, left = sum(row.bytes for row in gone), sum(row.bytes for row in rows if row not in gone)
    if as_json:
        removed = [asdict(row) for row in gone]
        emit_json("lab-clean", {"removed": removed, "freed_bytes": freed, "left_bytes": left})
    else:
        say(f"{human_bytes(freed)} freed in {len(gone)} folders, {human_bytes(left)} left.")
    return ExitCode.DONE
