"""The columns of a sweep's table, and the order of its rows, in every form that a program reads."""

from __future__ import annotations

from typing import Any

from packager.sweep.folder import Run
from packager.sweep.row import FIGURES, Row

AXES = ("variant", "recipe", "kv", "context", "profile", "target", "lora")
"""The coordinates of a cell."""
NAMES = (*FIGURES, "kl_mean", "tasks_passed")
"""The figures of a row."""
STATUS = {"done": 0, "dropped": 1, "failed": 2, "refused": 3}


def ordered(run: Run) -> list[Row]:
    """The rows: built ones first, by target and bytes."""
    return sorted(
        run.rows.values(),
        key=lambda row: (
            STATUS[row.status],
            row.of.target,
            row.figures.get("artifact_bytes", 0),
            row.id,
        ),
    )


def axis(value: Any) -> Any:
    """A coordinate for a spreadsheet: of several adapters one text."""
    if isinstance(value, list):
        return " + ".join(value)
    return "" if value is None else value
