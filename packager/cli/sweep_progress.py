"""A running sweep on stderr: a heading for each cell with a forecast of the end, its stages
below."""

from __future__ import annotations

import sys
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from packager.cli.output import narrate, printable
from packager.cli.progress import LiveRows, PlainLines
from packager.units import human_seconds

if TYPE_CHECKING:
    from packager.sweep.events import CellFinished, CellStarted, Told

Result = TypeVar("Result")


def follow(events: Generator[Any, None, Result]) -> Result:
    """Show every event, return what the generator returns; Ctrl-C closes it, which ends the
    work."""
    shown: _Live | _Plain = _Live() if sys.stderr.isatty() else _Plain()
    try:
        with shown:
            while True:
                shown.show_any(next(events))
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        events.close()


def heading(event: CellStarted | CellFinished | Told, now: datetime | None = None) -> str:
    """A line of the sweep's own."""
    from packager.sweep.events import CellFinished, CellStarted

    if isinstance(event, CellStarted):
        end = ""
        if event.left_s:
            at = (now or datetime.now()) + timedelta(seconds=event.left_s)
            end = f"; about {human_seconds(event.left_s)} left, until {at:%H:%M}"
        return f"{event.index} of {event.count}: {event.cell.label}{end}"
    if isinstance(event, CellFinished):
        from packager.sweep.report import outcome

        return f"{event.cell.label}: {outcome(event.row)}"
    return event.text


def _own(event: Any) -> bool:
    from packager.sweep.events import CellFinished, CellStarted, Told

    return isinstance(event, CellStarted | CellFinished | Told)


def _silent(event: Any) -> bool:
    """Whether lines of text say nothing of an event: a cluster works on many stages at once."""
    from packager.sweep.events import StageGiven

    return isinstance(event, StageGiven)


class _Plain(PlainLines):
    def show_any(self, event: Any) -> None:
        """One event of the sweep or of a build."""
        if _own(event):
            narrate(heading(event))
        elif not _silent(event):
            self.show(event)


class _Live(LiveRows):
    def show_any(self, event: Any) -> None:
        """One event of the sweep or of a build; the rows of a cell go when it is done."""
        if _silent(event):
            return
        if not _own(event):
            self.show(event)
            return
        self.say(printable(heading(event)))
        self.clear()
