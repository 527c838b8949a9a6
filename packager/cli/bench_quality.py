"""What `bench --on --quality` says of a package as another machine computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.cli.output import emit_table, narrate, say

if TYPE_CHECKING:
    from packager.records import Measurement


def lost(now: Measurement) -> bool:
    """Whether the machine computes something else than the checkpoint, beyond what the package's
    recipe may lose."""
    return now.quality is not None and now.quality.passed is False


def narrate_quality(now: Measurement) -> None:
    """What the package lost as the machine computes it; nothing where that was not asked for."""
    from packager.quality import paper
    from packager.quality.verdict import sentence

    if now.quality is None:
        return
    if now.quality.skipped:
        say(f"Quality there: not compared, {now.quality.skipped}.")
    rows = paper.table(now.quality)
    if rows:
        emit_table("Quality there", paper.COLUMNS, rows, right=paper.COLUMNS[1:])
    for row in now.quality.verdicts:
        say(f"{'passed' if row.passed else 'MISSED'}: {sentence(row)}")
    for line in paper.parity(now.quality):
        say(line)
    if lost(now):
        narrate("The machine's results differ too much from the checkpoint's.")
