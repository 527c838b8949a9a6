"""When a sweep will end: expected times, corrected by what the finished stages took."""

from __future__ import annotations

from collections.abc import Sequence

from packager.sweep.matrix import Planned
from packager.sweep.row import Row


class Clock:
    """Seconds that are left of the cells that it was given."""

    def __init__(self, todo: Sequence[Planned]) -> None:
        self._left = {planned.cell.id: planned.expected.total for planned in todo}
        self._expected = 0.0
        self._taken = 0.0

    def finished(self, one: Planned, row: Row) -> None:
        """A cell has its row. What came from the cache took no time, as what follows may do."""
        self._left.pop(one.cell.id, None)
        self._expected += one.expected.total
        self._taken += sum(row.seconds.values())

    @property
    def pace(self) -> float:
        """What a stage takes as a multiple of what was expected of it; 1 before anything is
        known."""
        return self._taken / self._expected if self._expected > 0 else 1.0

    def left(self) -> float:
        """Seconds until the last cell is done."""
        return self.pace * sum(self._left.values())
