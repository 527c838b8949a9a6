"""`qwen-pack probe --on`: another machine, as a device."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.cli.output import emit_json, say
from packager.cli.probe_rows import rows_of, say_rows
from packager.errors import ExitCode, usage
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.events import Event
    from packager.records.measurement import Through
    from targets.machine.elsewhere import Rates
    from targets.machine.probe import Machine


@dataclass(frozen=True, slots=True)
class Probed:
    """A machine elsewhere: what it has, its rates, the device that makes of it, how it was reached,
    and its kinds of cores."""

    machine: Machine
    rates: Rates
    target: Target
    through: Through
    names: tuple[str, ...]
    clusters: list[dict[str, float | int | None]]


def probe_on(
    address: str, agent: str | None, cool_c: float | None, name: str | None, as_json: bool
) -> int:
    """Measure the machine at an address, or of a name of the user's; with `name` write its device
    file here."""
    from packager.cli.progress import follow
    from packager.cli.reach import is_python, way_to
    from targets.devices.device_write import device_text, new_file, new_path

    if is_python(agent):
        raise usage(
            "`probe` measures with the kernels of an agent, and --agent python has none.",
            "Leave --agent out, or name an agent.",
        )
    if name:
        # A bad or taken name is refused before the machine is reached.
        new_path(name, Path.cwd())
    transport, _ = way_to(address, agent)
    if name and transport.prefix:
        raise usage(
            "What runs through another program, such as an emulator, has the figures of no device.",
            "Leave --save out, or name a device with --on.",
        )
    probed = follow(_probed(address, agent, cool_c, name or "device"))
    saved = new_file(probed.target.name, device_text(probed.target), Path.cwd()) if name else None
    if as_json:
        emit_json("probe", _payload(probed, str(saved) if saved else None))
    else:
        _print(probed)
    if saved:
        say(f"Written: {saved}. Use it: qwen-pack fit --target {saved.name}", err=True)
    return ExitCode.DONE


def _probed(
    address: str, agent: str | None, cool_c: float | None, name: str
) -> Generator[Event, None, Probed]:
    """Reach the machine, send its agent, measure there."""
    from packager.cli.reach import identify, way_to
    from packager.errors import unreachable
    from packager.events import StageFinished, StageStarted
    from packager.lab.gauges import Device, Reach
    from packager.lab.heat import celsius, with_heat
    from packager.lab.push import free_bytes
    from packager.lab.snapshot import take
    from packager.pipeline.cooling import cool, temperature
    from packager.pipeline.on_device import agent_there, through
    from packager.scratch import temporary_folder
    from targets.machine import elsewhere
    from targets.machine.probe import as_target

    transport, choose = way_to(address, agent)
    with temporary_folder() as held:
        snapshot = take(transport, held)
        if cool_c is not None:
            temperature(lambda: celsius(transport))
        here = identify(snapshot)
        started = time.monotonic()
        running = yield from agent_there(transport, choose(here))
        yield StageFinished("push", time.monotonic() - started, False, "")
        free = free_bytes(transport, transport.folder)
        if free is None:
            raise unreachable(
                "The device does not say how much of its disk is free.", "It needs df."
            )
        if cool_c is not None:
            yield from cool(lambda: celsius(transport), cool_c)
        way = through(transport, running, snapshot)
        before = celsius(transport)
        device = Device(Reach(running.argv, "", snapshot.cores(), {}, way))
        try:
            yield StageStarted("probe", "Measure the device", 1, 1)
            steps = elsewhere.measured(device, elsewhere.weight_bytes(snapshot))
            rates = yield from _noted(steps)
            yield StageFinished("probe", rates.measurement.seconds, False, "")
            warmed = with_heat(device.through(), before, transport)
        finally:
            device.link.close()
        machine = elsewhere.facts(snapshot, here, free)
        there = elsewhere.identity(here)
        target = as_target(machine, rates.measurement, name, there)
        return Probed(
            machine, rates, target, warmed or way, there.names, elsewhere.clusters(snapshot)
        )


def _noted(steps: Generator[str, None, Rates]) -> Generator[Event, None, Rates]:
    """Notes as events."""
    from packager.events import StageNote

    try:
        while True:
            yield StageNote("probe", next(steps))
    except StopIteration as stop:
        rates: Rates = stop.value
        return rates
    finally:
        steps.close()


def _payload(probed: Probed, saved: str | None) -> JsonObject:
    """The fields of `probe`, and what is told of a machine that was reached."""
    import msgspec

    measurement = probed.rates.measurement
    return {
        "machine": asdict(probed.machine),
        "measurement": asdict(measurement),
        "noisy": measurement.noisy,
        "device": probed.target.as_dict()["device"],
        "available_bytes": probed.target.device.available_bytes,
        "saved": saved,
        "kept": None,
        "names": list(probed.names),
        "clusters": [dict(row) for row in probed.clusters],
        "read_bytes_per_s": round(probed.rates.read),
        "through": msgspec.to_builtins(probed.through),
    }


def _print(probed: Probed) -> None:
    """What `probe` prints of this machine, and what only a device tells."""
    from packager.units import human_bytes

    rows = rows_of(probed.machine, probed.rates.measurement, probed.target)
    kinds = ", ".join(
        f"{row['cores']} at {row['mhz']:.0f} MHz" if row["mhz"] else f"{row['cores']}"
        for row in probed.clusters
    )
    heat = (probed.through.temperature_before_c, probed.through.temperature_after_c)
    rows[1:1] = [("name", " / ".join(probed.names))] if probed.names else []
    rows += [
        ("kinds of cores", kinds),
        ("memory reads", f"{human_bytes(probed.rates.read)}/s"),
        ("agent", f"{probed.through.agent_for}, by {probed.through.transport}"),
    ]
    if None not in heat:
        rows.append(("temperature", f"{heat[0]:.0f} °C before, {heat[1]:.0f} °C after"))
    rows += [(key, text) for key, text in _state(probed.through) if text]
    say_rows(rows, probed.rates.measurement)


def _state(through: Through) -> tuple[tuple[str, str | None], ...]:
    return (
        ("governor", through.governor),
        ("battery", through.battery),
        ("screen", through.screen),
    )
