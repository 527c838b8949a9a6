"""A running sweep as one frozen value, advanced by its events; the screen draws whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from packager.events import Event
from packager.sweep.cell import Cell
from packager.sweep.events import CellFinished, CellStarted, StageGiven, SweepEvent, Told
from packager.sweep.matrix import Planned
from packager.sweep.report import outcome
from packager.sweep.row import Row
from tui.progress import Progress, advance, before

Status = Literal["waiting", "running", "done", "failed", "refused", "dropped"]
State = Literal["running", "stopping", "stopped", "failed", "done"]
MARKS: dict[Status, str] = {
    "waiting": "○",
    "running": "●",
    "done": "✓",
    "failed": "✗",
    "refused": "✗",
    "dropped": "–",
}
_MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class CellState:
    """One cell as it stands: figures in bytes and tokens per second, None where there are none
    yet; before it is built those that are predicted, and then `predicted`."""

    cell: Cell
    status: Status = "waiting"
    artifact_bytes: float | None = None
    memory_bytes: float | None = None
    decode_tps: float | None = None
    predicted: bool = True
    says: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The whole sweep. `stages` are those of the cell that is being built in this process, `left_s`
    the seconds until the end as they were foretold at the time `told_at` of the screen's clock."""

    cells: tuple[CellState, ...]
    stages: Progress | None = None
    left_s: float | None = None
    told_at: float = 0.0
    lines: tuple[str, ...] = ()
    state: State = "running"
    problem: str = ""
    hint: str = ""
    exit_code: int = 0
    changed: frozenset[int] = frozenset()
    """Places of the cells that differ from the value before."""

    @property
    def busy(self) -> bool:
        """Whether anything is still at work."""
        return self.state in ("running", "stopping")

    def count(self, *status: Status) -> int:
        """How many cells are so."""
        return sum(planned.status in status for planned in self.cells)

    def left(self, now: float) -> float | None:
        """Seconds until the end; None while nobody knows, and after it."""
        if self.left_s is None or not self.busy:
            return None
        return max(0.0, self.left_s - (now - self.told_at))


def planned(cells: Sequence[Planned]) -> Sweep:
    """A sweep that has not begun, with what is predicted of each cell."""
    return Sweep(
        tuple(
            CellState(
                one.cell,
                artifact_bytes=one.artifact_bytes or None,
                memory_bytes=one.memory_bytes or None,
                decode_tps=one.decode_tps,
                says=one.problem or "",
            )
            for one in cells
        )
    )


class Follower:
    """Advances a sweep by its events. Knows the titles of a build's stages, and where each cell
    stands in the list."""

    def __init__(self, sweep: Sweep, titles: dict[str, str]) -> None:
        self.sweep = sweep
        self._titles = titles
        self._places = {planned.cell.id: place for place, planned in enumerate(sweep.cells)}

    def advance(self, event: Event | SweepEvent, now: float) -> Sweep:
        """The sweep after the event; `now` is the screen's clock, seconds."""
        match event:
            case CellStarted():
                sweep = self._with(event.cell, status="running", says="")
                self.sweep = replace(
                    sweep, stages=before(self._titles), left_s=event.left_s, told_at=now
                )
            case CellFinished():
                sweep = self._with(event.cell, **_finished(event.row))
                line = f"{event.cell.label}: {outcome(event.row)}"
                self.sweep = _said(replace(sweep, stages=None), line)
            case StageGiven():
                self.sweep = self._with(event.cell, status="running", says=f"{event.stage} …")
            case Told():
                self.sweep = replace(_said(self.sweep, event.text), changed=frozenset())
            case _:
                stages = advance(self.sweep.stages or before(self._titles), event, now)
                self.sweep = replace(self.sweep, stages=stages, changed=frozenset())
        return self.sweep

    def _with(self, cell: Cell, **fields: object) -> Sweep:
        index = self._places.get(cell.id)
        if index is None:
            return replace(self.sweep, changed=frozenset())
        cells = list(self.sweep.cells)
        cells[index] = replace(cells[index], **fields)  # type: ignore[arg-type]
        return replace(self.sweep, cells=tuple(cells), changed=frozenset({index}))


def _finished(row: Row) -> dict[str, object]:
    """What a row says of its cell."""
    fields: dict[str, object] = {"status": row.status, "says": outcome(row)}
    if row.status == "done":
        fields |= {
            "predicted": False,
            "artifact_bytes": row.figures.get("artifact_bytes"),
            "memory_bytes": row.figures.get("peak_memory_bytes"),
            "decode_tps": row.figures.get("decode_tps"),
        }
    return fields


def _said(sweep: Sweep, line: str) -> Sweep:
    return replace(sweep, lines=(*sweep.lines, line)[-_MOST_LINES:])
