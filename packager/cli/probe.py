"""`qwen-pack probe`: this machine, as a device."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from packager.cli.options import machine_options
from packager.cli.output import emit_json, json_option, say
from packager.cli.probe_rows import rows_of, say_rows
from packager.errors import ExitCode
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.device.target import Target
    from targets.machine.probe import Machine, Measurement


@click.command("probe")
@click.option(
    "--save", "name", metavar="NAME", help="Also write NAME.toml here, which --target accepts."
)
@machine_options(several=False, python=False)
@json_option
def command(
    name: str | None, address: str | None, agent: str | None, cool: float | None, as_json: bool
) -> int:
    """This machine, as a device: memory, instruction set, speed.

    Takes under ten seconds, and up to three times that while other programs disturb it; the speed
    is that of the installed engines' own kernels. The result is kept in the cache.

    With --on another machine, which needs neither Python nor qwen-pack; the speed is that of the
    kernels of its agent.
    """
    from pathlib import Path

    from packager.errors import usage

    if address is not None:
        from packager.cli.probe_on import probe_on

        return probe_on(address, agent, cool, name, as_json)
    if agent is not None or cool is not None:
        option = "--agent" if agent is not None else "--cool"
        raise usage(f"{option} works only with --on.", "Name the machine with --on.")

    from targets.devices.device_write import device_text, new_file, new_path
    from targets.machine.probe import as_target, keep, look

    if name:
        # A bad or taken name is refused before ten seconds are spent.
        new_path(name, Path.cwd())
    machine = look()
    measurement = _measure(machine)
    target = as_target(machine, measurement, name or "this-machine")
    saved = new_file(target.name, device_text(target), Path.cwd()) if name else None
    kept = keep(machine, measurement)
    if as_json:
        emit_json(
            "probe",
            _payload(
                machine,
                measurement,
                target,
                str(saved) if saved else None,
                str(kept) if kept else None,
            ),
        )
        return ExitCode.DONE
    say_rows(rows_of(machine, measurement, target), measurement)
    if kept is None:
        say("The earlier, quiet measurement in the cache is kept.", err=True)
    if saved:
        say(f"Written: {saved}. Use it: qwen-pack fit --target {saved.name}", err=True)
    return ExitCode.DONE


def _measure(machine: Machine) -> Measurement:
    """Measure, narrating on stderr."""
    from packager.process import Note
    from targets.machine.probe import measure
    from targets.registry import environment_of

    notes = measure(machine, environment_of)
    try:
        while True:
            message = next(notes)
            if isinstance(message, Note):
                say(message.text, err=True)
    except StopIteration as end:
        result: Measurement = end.value
        return result
    finally:
        notes.close()


def _payload(
    machine: Machine, measurement: Measurement, target: Target, saved: str | None, kept: str | None
) -> JsonObject:
    return {
        "machine": asdict(machine),
        "measurement": asdict(measurement),
        "noisy": measurement.noisy,
        "device": target.as_dict()["device"],
        "available_bytes": target.device.available_bytes,
        "saved": saved,
        "kept": kept,
    }
