"""What a running sweep says besides the events of its builds."""

from __future__ import annotations

from dataclasses import dataclass

from packager.sweep.cell import Cell
from packager.sweep.row import Row


@dataclass(frozen=True, slots=True)
class CellStarted:
    """Cell number `index` (from 1) of `count` begins; `left_s` are the seconds until the end as far
    as they can be foretold."""

    cell: Cell
    index: int
    count: int
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class CellFinished:
    """Its row, however it went."""

    cell: Cell
    row: Row


@dataclass(frozen=True, slots=True)
class StageGiven:
    """A stage of a cell was given to the workers of a cluster."""

    cell: Cell
    stage: str


@dataclass(frozen=True, slots=True)
class Told:
    """A line worth reading about the sweep as a whole."""

    text: str


SweepEvent = CellStarted | CellFinished | StageGiven | Told
