"""What was measured, as Markdown: the same sentences and tables in a package's README and in its
model card."""

from __future__ import annotations

from collections.abc import Sequence

from packager.device.identity import NOT_YET
from packager.escapes import markdown
from packager.records import Measurement, Verdict
from packager.report.budgets import sentence
from packager.report.figures import Row
from packager.units import human_bytes

_MARKS = {True: "passed", False: "MISSED", None: "open"}


def where(measured: Measurement, later: str = "") -> str:
    """On which machine the figures were taken, and what that says about the device; `later` says
    what would tell more."""
    machine = measured.machine
    parts = [f"on {markdown(machine.processor)}, {machine.cores} cores"] if machine else []
    if machine and machine.memory_bytes:
        parts.append(f"{human_bytes(machine.memory_bytes)} of memory")
    parts += [markdown(measured.noise)] if measured.noise else []
    taken = f"On {markdown((measured.measured_at or '')[:10])}, {', '.join(parts)}:"
    if measured.place is None or measured.place.on_device:
        return taken
    return (
        f"**{NOT_YET.capitalize()}**: {markdown(measured.place.why)}. What follows is a check on "
        f"the machine that built it. {later}\n\n{taken}"
    )


def nowhere(why: str | None, later: str = "") -> str:
    """That there are no figures, and why."""
    reason = markdown(why or "It was not run where it was built.")
    return f"**{NOT_YET.capitalize()}.** {reason} {later}"


def table(rows: Sequence[Row], target: str) -> str:
    """Measured beside predicted; predictions alone where nothing was measured."""
    head = (
        f"| | measured | predicted for {markdown(target)} | error |\n| --- | ---: | ---: | ---: |\n"
    )
    lines = []
    for row in rows:
        predicted, measured, error = row.texts()
        lines.append(f"| {row.label} | {measured} | {predicted} | {error} |\n")
    return head + "".join(lines)


def left_out(measured: Measurement | None) -> str:
    """What was not measured, one line each."""
    return "".join(
        f"* left out: {markdown(text)}\n" for text in (measured.left_out if measured else ())
    )


def budgets(verdicts: Sequence[Verdict]) -> str:
    """One line per budget."""
    return "".join(
        f"* {_MARKS[verdict.passed]}: {markdown(sentence(verdict))}"
        f"{'' if verdict.enforced else ' (reported, not enforced)'}\n"
        for verdict in verdicts
    )
