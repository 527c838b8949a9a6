"""What `qwen-pack build` prints of a package that stands, and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.cli.output import emit_json, emit_table, narrate, say
from packager.cli.quality import show_quality
from packager.errors import ExitCode

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.records import Contents, Verdict


def show_outcome(package: Package, as_json: bool) -> int:
    """Print the package, and give the exit code of its budgets."""
    if as_json:
        emit_json("build", {"package": str(package.path), "manifest": package.manifest.data})
    else:
        if package.contents.alternatives:
            from packager.cli.comparison_table import show_comparison

            show_comparison(package.contents)
        _show(package)
    if not package.failed:
        return ExitCode.DONE
    from packager.report.budgets import sentence

    narrate("Missed: " + "; ".join(sentence(row) for row in package.failed) + ".")
    return ExitCode.BUDGET


def _show(package: Package) -> None:
    """The result table: predicted beside measured, then the budgets, and where the figures come
    from."""
    from packager.report import figures
    from packager.report.budgets import sentence

    contents = package.contents
    here = (
        "measured here"
        if contents.measured is None or contents.measured.on_device
        else "measured here, not on the device"
    )
    columns = ("", f"predicted for {contents.target}", here, "error")
    emit_table(
        contents.name,
        columns,
        [(row.label, *row.texts()) for row in figures.rows_of(contents)],
        right=columns[1:],
    )
    show_quality(contents.quality)
    if contents.warm is not None:
        say(contents.warm.sentence())
    if contents.speculation is not None:
        say(contents.speculation.sentence())
    for verdict in contents.verdicts:
        say(f"{_mark(verdict)}: {sentence(verdict)}")
    _where(contents)
    say(f"Package: {package.path}")


def _mark(verdict: Verdict) -> str:
    """The outcome of a budget in a word or two."""
    if verdict.passed is None:
        return "open"
    if verdict.passed:
        return "passed"
    return "missed" if verdict.enforced else "missed on this machine"


def _where(contents: Contents) -> None:
    """On which machine the figures were taken, and whether that is the device."""
    from packager.cli.bench import narrate_long_run
    from packager.device.identity import NOT_YET

    measured = contents.measured
    if measured is None:
        say(f"{NOT_YET.capitalize()}: {contents.not_measured}")
    else:
        machine = measured.machine
        on = f", on {machine.processor}, {machine.cores} cores" if machine else ""
        say(f"Measured on {(measured.measured_at or '')[:10]}{on}.")
        narrate_long_run(measured.sustained)
        for text in measured.left_out:
            narrate(f"Left out: {text}.")
        if measured.noisy:
            narrate(
                f"This measurement is {measured.noise}; the same build, or `qwen-pack bench`, "
                "measures again."
            )
        if measured.place is None or measured.place.on_device:
            return
        say(f"{NOT_YET.capitalize()}: {measured.place.why}. What was measured here is a check.")
    narrate(
        f"`qwen-pack bench` on {contents.target} adds its figures and judges the budgets there."
    )
