"""`qwen-pack bench`: measure a package again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from packager.cli.options import sustained_option
from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.errors import ExitCode


@click.command("bench")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--save",
    is_flag=True,
    help="Add the figures to the package's manifest, beside those that are there.",
)
@click.option(
    "--on-device",
    "claimed",
    is_flag=True,
    help="This machine is the device, though it does not call itself so.",
)
@sustained_option
@json_option
def command(package: Path, save: bool, claimed: bool, sustained: float, as_json: bool) -> int:
    """Measure PACKAGE on this machine and put the figures beside its manifest's.

    On the device that the package is for the budgets are judged, and the first measurement there is
    kept.
    """
    from packager.cli.progress import follow
    from packager.errors import usage
    from packager.package import manifest
    from packager.pipeline import bench
    from packager.report.evidence import on_device, seen_on_device, telling
    from targets import registry
    from targets.machine.here import here

    found = manifest.read(package)
    writable = os.access(package, os.W_OK)
    if save and not writable:
        raise usage(
            f"{package} is not writable, so the figures could not be saved.",
            "Measure without --save, or copy the package.",
        )
    now = follow(
        bench.run(
            package, registry.runtime(found.data["runtime"]["name"]), here(), claimed, sustained
        )
    )
    there = on_device(now)
    wanted = save or (there and not seen_on_device(found.data))
    if wanted and writable:
        bench.save(package, now)
    before = telling(found.data) or {}
    verdicts = bench.judged(found.data, now) if there else []
    failed = [row for row in verdicts if row["enforced"] and row["passed"] is False]
    if as_json:
        fields = {
            "measured": now,
            "manifest": before,
            "rows": bench.beside(before, now),
            "verdicts": verdicts,
        }
        emit_json(
            "bench",
            {"package": str(package), "name": found.name, **fields, "saved": wanted and writable},
        )
    else:
        _show(found.name, before, now, verdicts)
    if wanted and not writable:
        narrate(
            f"{package} is not writable: the figures of the device were not added to its manifest."
        )
    return ExitCode.BUDGET if failed else ExitCode.DONE


def _show(
    name: str, before: dict[str, Any], now: dict[str, Any], verdicts: list[dict[str, Any]]
) -> None:
    """The figures beside the manifest's, the budgets where they can be judged, and what is worth
    knowing."""
    from packager.device.identity import NOT_YET
    from packager.report import figures
    from packager.report.budgets import sentence

    earlier = {row.label: row for row in figures.rows({"measured": before})}
    table = []
    for row in figures.rows({"measured": now}):
        was = earlier.get(row.label)
        ratio = (
            f"{row.measured / was.measured:.2f}"
            if was and was.measured and row.measured is not None
            else ""
        )
        table.append((row.label, was.texts()[1] if was else "not measured", row.texts()[1], ratio))
    emit_table(name, ("", "manifest", "now", "ratio"), table, right=("manifest", "now", "ratio"))
    narrate_long_run(now)
    for verdict in verdicts:
        say(
            f"{'passed' if verdict['passed'] else 'missed' if verdict['passed'] is False else 'open'}: {sentence(verdict)}"
        )
    place = now["place"]
    if not place["on_device"]:
        narrate(
            f"{NOT_YET.capitalize()}: {place['why']}. The budgets stay as they are; --on-device "
            "says that this is the device."
        )
    if before and before.get("machine") != now["machine"]:
        narrate("The manifest's figures come from another machine.")
    for text in now["left_out"]:
        narrate(f"Left out: {text}.")
    if now["noisy"]:
        narrate(
            f"This measurement is {figures.noise(now)}. Close other programs and measure again."
        )


def narrate_long_run(measured: dict[str, Any]) -> None:
    """The decode rate over a sustained run as a line of characters, and whether the machine
    throttled."""
    from packager.measure.throttling import sparkline

    run = measured.get("sustained")
    if not run:
        return
    say(
        f"Sustained, {run['seconds']:.0f} s: "
        f"{sparkline([row['decode_tps'] for row in run['windows']])}"
    )
    hot = "" if run["temperature_c_max"] is None else f", up to {run['temperature_c_max']:.0f} °C"
    said = {
        True: "the machine throttles",
        False: "no throttling",
        None: "others were at work: nothing can be said of throttling",
    }
    say(
        f"{run['first_tps']:.1f} tok/s at first, {run['last_tps']:.1f} at last "
        f"({run['ratio']:.2f}){hot}: {said[run['throttled']]}."
    )
