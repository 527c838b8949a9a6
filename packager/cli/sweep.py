"""`qwen-pack sweep`: a matrix of builds from a plan file, and its report."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.options import Number, Size
from packager.cli.output import emit_json, emit_table, json_option, narrate, say
from packager.errors import ExitCode, PackError

if TYPE_CHECKING:
    from packager.sweep.building import Work
    from packager.sweep.history import Change
    from packager.sweep.known import Known
    from packager.sweep.matrix import Matrix
    from packager.sweep.plan_file import SweepPlan
    from packager.sweep.standing import Pair

REPORT = "report"


@click.command("sweep", options_metavar="[OPTIONS]")
@click.argument("plan", metavar="PLAN.toml | report", type=click.Path(path_type=Path))
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The sweep's folder; sweep-NAME, here, by default.",
)
@click.option("--dry-run", is_flag=True, help="Print the matrix and its forecast, start nothing.")
@click.option(
    "--keep-packages",
    type=click.Choice(["all", "best", "none"]),
    help="Packages to keep whole; only the manifest of others stays. As in the plan, else all.",
)
@click.option(
    "--max-disk",
    type=Size(),
    help="What the sweep's folder and the cache may take together, e.g. 200G.",
)
@click.option(
    "--keep",
    type=Number(1, 1e6, whole=True),
    metavar="N",
    help="Prune while it runs: keep the best N of each target.",
)
@click.option(
    "--by",
    metavar="LIST",
    help="What pruning ranks by: quality, memory, size, speed, separated by commas.",
)
@click.option(
    "--dask",
    metavar="ADDRESS|local:N|slurm:N|ssh:HOSTS",
    help="Run on a Dask cluster, N workers of this machine, N jobs of SLURM, or hosts over "
    "SSH; needs the extra `fleet`.",
)
@click.option(
    "--cache",
    metavar="FOLDER|URL",
    help="A cache that several machines share, in addition to the local one; a folder, or s3://bucket/x.",
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit code 4 where a figure is worse than the last time, beyond the noise.",
)
@click.option(
    "--on",
    multiple=True,
    metavar="TARGET=MACHINE",
    help="Measure packages of a target on another machine, as `bench --on` does; repeatable.",
)
@click.option("--tui", "screen", is_flag=True, help="Follow it on a screen; needs the extra `tui`.")
@json_option
def command(
    plan: Path,
    folder: Path | None,
    dry_run: bool,
    fail_on_regression: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Build, check and measure a matrix: variants, recipes, targets from a plan file.

    \b
    qwen-pack sweep nightly.toml --dry-run      the matrix: bytes, memory, time, what does not fit
    qwen-pack sweep nightly.toml                build it; the same command continues where it ended
    qwen-pack sweep report sweep-nightly        table, CSV, JSON, HTML and the Pareto plot again
    """
    if str(plan) == REPORT:
        return _report(folder, as_json)
    if folder is not None:
        from packager.names import did_you_mean

        meant = "" if plan.is_file() else did_you_mean(str(plan), [REPORT])
        raise PackError(
            f"{folder} is one argument too many.{meant}", "Give the plan file, or: report DIR."
        )
    from packager.cli.sweep_worker import known_here
    from packager.sweep.matrix import matrix

    known = known_here()
    if flags["dask"] and not flags["dask"].startswith("local:"):
        # Whether a conversion has room is for the machines to say that do it.
        known = replace(known, memory=lambda: None)
    asked = _asked(plan, known, flags)
    root = flags["out"] or Path(f"sweep-{asked.name}")
    pace = _pace(root)
    planned = matrix(asked, known, pace)
    if dry_run:
        _show_matrix(asked, planned, as_json)
        return ExitCode.DONE
    work = _work(asked, planned, root, known, flags["cache"])
    follow_to_the_end(work, flags["dask"], flags["screen"])
    return _finished(work, fail_on_regression, as_json)


# Any: values of flags, which click has checked.
def _asked(path: Path, known: Known, flags: dict[str, Any]) -> SweepPlan:
    """The plan file with the command's flags over it."""
    from packager.errors import usage
    from packager.names import did_you_mean
    from packager.sweep.plan_file import read
    from packager.sweep.plan_schema import OBJECTIVES

    plan = read(path, known)
    by = tuple(word.strip() for word in (flags["by"] or "").split(",") if word.strip())
    for word in by:
        if word not in OBJECTIVES:
            raise usage(
                f"--by knows no {word!r}.{did_you_mean(word, OBJECTIVES)}",
                f"Known: {', '.join(OBJECTIVES)}.",
            )
    if by and flags["keep"] is None and plan.keep is None:
        raise usage("--by has no effect without --keep.", "Add --keep N.")
    return replace(
        plan,
        keep_packages=flags["keep_packages"] or plan.keep_packages,
        disk_bytes=flags["max_disk"] or plan.disk_bytes,
        keep=flags["keep"] if flags["keep"] is not None else plan.keep,
        by=by or plan.by,
        on={**plan.on, **_on(flags["on"], plan)},
    )


def _on(words: tuple[str, ...], plan: SweepPlan) -> dict[str, str]:
    """The machine of each target that --on names."""
    from packager.errors import usage
    from packager.lab.machines import address_of
    from packager.lab.transport import parse
    from packager.names import did_you_mean

    machines = {}
    for word in words:
        target, equals, machine = word.partition("=")
        if not equals or target not in plan.targets:
            raise usage(
                f"--on {word!r} does not name a target of the plan."
                f"{did_you_mean(target, plan.targets)}",
                f"Write TARGET=MACHINE. Targets: {', '.join(plan.targets)}.",
            )
        parse(address_of(machine))
        machines[target] = machine
    return machines


def _pace(root: Path) -> Any:
    """The pace of the folder's earlier runs, where there are any."""
    from packager.sweep.building import learnt
    from packager.sweep.expect import Pace
    from packager.sweep.folder import MARK, Folder

    return learnt(Folder(root)) if (root / MARK).is_file() else Pace()


def _work(plan: SweepPlan, matrix: Matrix, root: Path, known: Known, shared: str | None) -> Work:
    from packager.sweep.building import Work, cache_with
    from packager.sweep.folder import Folder

    for note in matrix.notes:
        narrate(note)
    return Work(plan, matrix, Folder.made(root.absolute(), plan), known, cache_with(shared))


def follow_to_the_end(work: Work, address: str | None, screen: bool = False) -> None:
    """Run the sweep, here or on a cluster. Raises PackError (interrupted) where it was stopped."""
    from packager.cli.sweep_progress import follow

    try:
        if screen:
            from packager.cli import sweep_screen

            whole = sweep_screen.follow(work, lambda: _started(work, address))
        else:
            follow(_started(work, address))
            whole = True
    except KeyboardInterrupt:
        whole = False
    if not whole:
        raise PackError(
            "Interrupted: every finished cell and stage is kept.",
            "Run the same command again to continue.",
            ExitCode.INTERRUPTED,
        )


def _started(work: Work, address: str | None) -> Generator[Any, None, Any]:
    if address is None:
        from packager.sweep.inline import run

        return run(work)
    # Late: Dask is an extra.
    from packager.cli.sweep_worker import unit
    from packager.sweep import fleet

    return fleet.run(work, address, unit)


def _finished(work: Work, strict: bool, as_json: bool) -> int:
    """The report of the run, and the exit code."""
    from packager.sweep import report
    from packager.sweep.history import compared
    from packager.sweep.standing import standing

    runs = work.folder.runs()
    written = report.write(work.folder, runs, work.plan)
    changes = compared(runs)
    _show_rows(runs[-1], changes, standing(runs, work.plan.compare), written, as_json)
    rows = list(runs[-1].rows.values())
    failed = [row for row in rows if row.status == "failed"]
    worse = [change for change in changes if change.regression]
    if any(row.exit_code == ExitCode.BUG for row in failed):
        return ExitCode.BUG
    if strict and worse:
        return ExitCode.BUDGET
    if not any(row.status == "done" for row in rows):
        codes = [row.exit_code for row in rows if row.exit_code]
        return codes[0] if codes else ExitCode.NOTHING_FITS
    return ExitCode.DONE


def _report(folder: Path | None, as_json: bool) -> int:
    from packager.errors import usage
    from packager.sweep import report
    from packager.sweep.folder import Folder
    from packager.sweep.history import compared
    from packager.sweep.standing import standing

    if folder is None:
        raise usage("Which sweep?", "Name its folder: qwen-pack sweep report DIR.")
    opened = Folder.opened(folder)
    runs = opened.runs()
    if not runs:
        raise usage(f"{folder} holds no run yet.", "Start one with: qwen-pack sweep PLAN.toml.")
    written = report.write(opened, runs)
    pairs = standing(runs, opened.asked(runs[-1]).compare)
    _show_rows(runs[-1], compared(runs), pairs, written, as_json)
    return ExitCode.DONE


def _show_matrix(plan: SweepPlan, matrix: Matrix, as_json: bool) -> None:
    from packager.sweep.forecast import as_dict, columns, rows, sentences

    if as_json:
        emit_json("sweep", as_dict(plan, matrix))
        return
    emit_table(plan.name, columns(), rows(matrix), right=columns()[3:-1])
    for line in sentences(matrix):
        narrate(line)


def _show_rows(
    run: Any, changes: list[Change], pairs: list[Pair], written: list[Path], as_json: bool
) -> None:
    from packager.sweep import report

    if as_json:
        more = {
            "comparisons": [pair.as_dict() for pair in pairs],
            "files": [str(one) for one in written],
        }
        emit_json("sweep", {**report.as_dict(run, changes), **more})
        return
    table = report.table(run)
    emit_table("", table.columns, table.cells, right=table.columns[1:-1])
    for line in report.sentences(run, changes):
        narrate(line)
    for pair in pairs:
        narrate(pair.sentence())
    if not any(path.suffix == ".parquet" for path in written):
        narrate("Plots as PNG and the table as Parquet: pip install 'qwen-pack[report]'.")
    say(f"Report: {', '.join(path.name for path in written)} in {written[0].parent}")
