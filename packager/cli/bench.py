"""`qwen-pack bench`: measure a package again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.bench_quality import lost, narrate_quality
from packager.cli.options import machine_options, sustained_option
from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.cli.shared_options import adapters_option, package_argument
from packager.errors import ExitCode
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from packager.cli.reach import Way
    from packager.package.manifest import Manifest
    from packager.records import Measurement, Sustained, Verdict


@click.command("bench")
@package_argument
@click.option(
    "--save",
    is_flag=True,
    help="Add the figures to the package's manifest; those already there stay.",
)
@click.option(
    "--on-device",
    "claimed",
    is_flag=True,
    help="This machine is the device, although its name differs.",
)
@machine_options(several=True)
@adapters_option
@sustained_option
@click.option(
    "--quality",
    "checkpoint",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="CHECKPOINT",
    help="With --on: compare what the machine computes with this unquantized checkpoint, a folder.",
)
@click.option(
    "--transcripts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Count word errors over recordings: one JSON object per line, with `audio` and `text`.",
)
@json_option
def command(
    package: Path,
    save: bool,
    claimed: bool,
    machines: tuple[str, ...],
    agent: str | None,
    cool: float | None,
    adapters: tuple[Path, ...],
    sustained: float,
    checkpoint: Path | None,
    transcripts: Path | None,
    as_json: bool,
) -> int:
    """Measure PACKAGE on this machine and compare the figures with its manifest's.

    With --on the model runs on another machine, which needs neither Python nor qwen-pack; with
    several, on all of them at once.

    On the device that the package is for, the budgets are checked, and the first measurement there
    is kept. With --adapter the figures are those of PACKAGE with the adapter, and only --save keeps
    them, in the adapter's manifest.
    """
    from packager.cli import reach
    from packager.cli.progress import follow
    from packager.errors import usage
    from packager.package import manifest
    from packager.pipeline import bench
    from targets import registry
    from targets.machine.here import here

    if transcripts is not None and machines:
        raise usage("--on takes no --transcripts.", "Measure the words here, the speed there.")
    package_manifest = manifest.read(package)
    destination = _place(package, adapters, save, bool(machines))
    writable = os.access(destination, os.W_OK)
    if save and not writable:
        raise usage(
            f"{destination} is not writable, so the figures could not be saved.",
            "Measure without --save, or copy the package.",
        )
    runtime = registry.runtime(package_manifest.contents.runtime.name)
    way = reach.Way(agent, claimed, sustained, cool, checkpoint)
    if len(machines) > 1:
        from packager.cli.bench_machines import bench_machines

        return bench_machines(package_manifest, package, machines, way, save, as_json)
    if machines:
        now = follow(reach.measure_on(package, runtime.name, machines[0], way))
    else:
        _refuse_flags_of_others(way)
        now = follow(
            bench.run(package, runtime, here(), claimed, sustained, cool, adapters, transcripts)
        )
    first = now.on_device and not package_manifest.contents.seen_on_device
    wanted = save or (first and not adapters)
    if wanted and writable:
        bench.save(destination, now)
    code = _outcome(package, package_manifest, now, wanted and writable, as_json)
    if wanted and not writable:
        narrate(
            f"{package} is not writable: the figures of the device were not added to its manifest."
        )
    return code


def _refuse_flags_of_others(way: Way) -> None:
    """Raises PackError (usage) for what only another machine is measured with."""
    from packager.errors import usage

    if way.agent is not None:
        raise usage("--agent works only with --on.", "Name the machine with --on.")
    if way.checkpoint is not None:
        raise usage(
            "--quality works only with --on.",
            "For this machine the build has compared the package: see quality in its manifest.",
        )


def _outcome(package: Path, known: Manifest, now: Measurement, saved: bool, as_json: bool) -> int:
    """Print the figures, and give the exit code of the budgets and of the quality."""
    from packager.pipeline import bench

    before = known.contents.telling
    verdicts = bench.judged(known.contents, now) if now.on_device else []
    if as_json:
        fields: JsonObject = {
            "package": str(package),
            "name": known.name,
            "measured": now.to_json(),
            "manifest": before.to_json() if before else {},
            "rows": [row.as_dict() for row in bench.beside(before, now)],
            "verdicts": [verdict.to_json() for verdict in verdicts],
            "saved": saved,
        }
        emit_json("bench", fields)
    else:
        _show(known.name, before, now, verdicts)
    missed = any(verdict.failed for verdict in verdicts)
    return ExitCode.BUDGET if missed or lost(now) else ExitCode.DONE


def _place(package: Path, adapters: tuple[Path, ...], save: bool, elsewhere: bool) -> Path:
    """The package whose manifest takes the figures: the adapter's where one is added. Raises
    PackError (usage) for flags that contradict each other."""
    from packager.errors import usage

    if adapters and elsewhere:
        raise usage("--on takes no --adapter.", "Measure the base there, or the adapter here.")
    if save and len(adapters) > 1:
        raise usage("The figures of several adapters belong to none of them.", "Leave --save out.")
    return adapters[0] if adapters else package


def _show(
    name: str, before: Measurement | None, now: Measurement, verdicts: Sequence[Verdict]
) -> None:
    """The figures beside the manifest's, the budgets where they can be judged, and what is worth
    knowing."""
    from packager.device.identity import NOT_YET
    from packager.report import figures
    from packager.report.budgets import sentence

    earlier = {row.name: row for row in figures.rows(before)}
    table = []
    for row in figures.rows(now):
        was = earlier.get(row.name)
        ratio = (
            f"{row.measured / was.measured:.2f}"
            if was and was.measured and row.measured is not None
            else ""
        )
        table.append((row.label, was.texts()[1] if was else "not measured", row.texts()[1], ratio))
    emit_table(name, ("", "manifest", "now", "ratio"), table, right=("manifest", "now", "ratio"))
    narrate_long_run(now.sustained)
    narrate_quality(now)
    outcomes = {True: "passed", False: "missed", None: "open"}
    for verdict in verdicts:
        say(f"{outcomes[verdict.passed]}: {sentence(verdict)}")
    if now.place is not None and not now.place.on_device:
        narrate(
            f"{NOT_YET.capitalize()}: {now.place.why}. The budgets stay as they are; --on-device "
            "says that this is the device."
        )
    if before is not None and before.machine != now.machine:
        narrate("The manifest's figures come from another machine.")
    for text in now.left_out:
        narrate(f"Left out: {text}.")
    if now.noisy:
        narrate(f"This measurement is {now.noise}. Close other programs and measure again.")


def narrate_long_run(run: Sustained | None) -> None:
    """The decode rate over a sustained run as a line of characters, and whether the machine
    throttled."""
    from packager.measure.throttling import sparkline

    if run is None:
        return
    say(f"Sustained, {run.seconds:.0f} s: {sparkline([row.decode_tps for row in run.windows])}")
    hot = "" if run.temperature_c_max is None else f", up to {run.temperature_c_max:.0f} °C"
    outcome = {
        True: "the machine throttles",
        False: "no throttling",
        None: "other programs were at work, so throttling could not be judged",
    }[run.throttled]
    say(
        f"{run.first_tps:.1f} tok/s at first, {run.last_tps:.1f} at last "
        f"({run.ratio:.2f}){hot}: {outcome}."
    )
