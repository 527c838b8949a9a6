"""The table of a sweep, as every form of its report shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Titles, cells as people read them, and the number behind each cell, None for texts."""

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[float | None, ...], ...]
