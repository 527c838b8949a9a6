"""What a build lost, for whoever reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.cli.output import emit_table, say

if TYPE_CHECKING:
    from packager.records import Quality


def show_quality(quality: Quality | None) -> None:
    """What it lost against the unquantized model, part by part."""
    from packager.quality import paper
    from packager.quality.verdict import sentence

    if quality is None:
        return
    table = paper.table(quality)
    if table:
        emit_table(
            "Against the unquantized model, divergence in nats",
            paper.COLUMNS,
            table,
            right=paper.COLUMNS[1:],
        )
    elif quality.skipped:
        say(f"No divergence from the unquantized model: {quality.skipped}.")
    for line in (*paper.noise(quality), *paper.pictures(quality), *paper.parity(quality)):
        say(line)
    for row in quality.verdicts:
        say(f"{'passed' if row.passed else 'missed, and let through'}: {sentence(row)}")
