"""`qwen-pack bench`: measure a package again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from packager.cli.options import sustained_option
from packager.cli.output import emit_json, emit_table, json_option, narrate


@click.command("bench")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--save", is_flag=True, help="Add the figures to the package's manifest, beside those that are there.")
@sustained_option
@json_option
def command(package: Path, save: bool, sustained: float, as_json: bool) -> None:
    """Measure PACKAGE on this machine and put the figures beside its manifest's."""
    from packager import bench, figures, manifest
    from packager.cli.progress import follow
    from packager.errors import usage
    from targets import registry

    found = manifest.read(package)
    if save and not os.access(package, os.W_OK):
        raise usage(f"{package} is not writable, so the figures could not be saved.", "Measure without --save, or copy the package.")
    now = follow(bench.run(package, registry.runtime(found.data["runtime"]["name"]), sustained))
    if save:
        bench.save(package, now)
    before = found.data.get("measured") or {}
    if as_json:
        rows = bench.beside(before, now)
        emit_json("bench", {"package": str(package), "name": found.name, "measured": now, "manifest": before, "rows": rows, "saved": save})
        return
    earlier = {row.label: row for row in figures.rows({"measured": before})}
    table = []
    for row in figures.rows({"measured": now}):
        was = earlier.get(row.label)
        ratio = f"{row.measured / was.measured:.2f}" if was and was.measured and row.measured is not None else ""
        table.append((row.label, was.texts()[1] if was else "not measured", row.texts()[1], ratio))
    emit_table(found.name, ("", "manifest", "now", "ratio"), table, right=("manifest", "now", "ratio"))
    narrate_long_run(now)
    if before and before.get("machine") != now["machine"]:
        narrate("The manifest's figures come from another machine.")
    for text in now["left_out"]:
        narrate(f"Left out: {text}.")
    if now["noisy"]:
        narrate(f"This measurement is {figures.noise(now)}. Close other programs and measure again.")


def narrate_long_run(measured: dict[str, Any]) -> None:
    """The decode rate over a sustained run as a line of characters, and whether the machine throttled."""
    from packager.sustained import sparkline

    run = measured.get("sustained")
    if not run:
        return
    click.echo(f"Sustained, {run['seconds']:.0f} s: {sparkline([row['decode_tps'] for row in run['windows']])}")
    hot = "" if run["temperature_c_max"] is None else f", up to {run['temperature_c_max']:.0f} °C"
    said = {True: "the machine throttles", False: "no throttling", None: "others were at work: nothing can be said of throttling"}
    click.echo(f"{run['first_tps']:.1f} tok/s at first, {run['last_tps']:.1f} at last ({run['ratio']:.2f}){hot}: {said[run['throttled']]}.")
