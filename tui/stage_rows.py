"""The stages of a build as rows of text and style: mark, bar, share, time and amount."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.bars import bar
from tui.progress import MARKS

if TYPE_CHECKING:
    from tui.progress import Stage

_STYLES = {
    "waiting": "$foreground-muted",
    "running": "bold $text-accent",
    "done": "$text-success",
    "cached": "$text-success",
    "failed": "bold $text-error",
    "cancelled": "$text-warning",
}


_FIXED = 40
"""Cells of mark, title, share and time."""
_LEAST = 8
"""Cells in which an amount still says something."""


_WIDE, _NORMAL = 150, 100
"""Cells from which a bar is longer."""


def _track(width: int) -> int:
    if width >= _WIDE:
        return 64
    return 24 if width >= _NORMAL else 12


def stage_rows(stages: Sequence[Stage], width: int, now: float) -> list[tuple[str, str]]:
    """A line per stage in so many cells, as it stands at the time `now` of the screen's clock."""
    parts: list[tuple[str, str]] = []
    for stage in stages:
        share = stage.share
        track = _track(width)
        unknown = track * ("·" if stage.status == "running" else " ")
        filled = unknown if share is None else bar(share, track)
        percent = f"{share:4.0%}" if share is not None and stage.status == "running" else "    "
        amount = stage.amount()
        room = width - track - _FIXED
        if room < _LEAST:
            # A row that breaks is worse than one without its last word.
            amount = ""
        elif len(amount) > room:
            amount = amount[: room - 1] + "…"
        parts += [
            (f"{MARKS[stage.status]} {stage.title:<21}", _STYLES[stage.status]),
            (f"{filled}", "$primary"),
            (
                f" {percent} {stage.time(now):>9}  ",
                "" if stage.status == "running" else "$foreground-muted",
            ),
            (f"{amount}\n", "" if stage.status == "running" else "$foreground-muted"),
        ]
    if parts:
        parts[-1] = (parts[-1][0].rstrip("\n"), parts[-1][1])
    return parts
