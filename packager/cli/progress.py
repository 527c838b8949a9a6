"""The events of a build as rows on stderr: live in a terminal, one line per fact where stderr is
piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from packager.cli.output import narrate
from packager.events import (
    AlternativeFinished,
    AlternativeStarted,
    Compared,
    Event,
    StageFailed,
    StageFinished,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.progress import TaskID

Result = TypeVar("Result")
_QUIET_S = 10.0


def follow(events: Generator[Event, None, Result]) -> Result:
    """Show every event, return what the generator returns; Ctrl-C closes it, which ends the
    work."""
    shown: LiveRows | PlainLines = LiveRows() if sys.stderr.isatty() else PlainLines()
    try:
        with shown:
            while True:
                shown.show(next(events))
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        events.close()


def amount(event: StageProgress) -> str:
    """`310 MB of 1.19 GB (26 %)`, or `3 of 5 answers`."""
    if event.unit == "B":
        done, total = human_bytes(event.done), human_bytes(event.total or 0)
        return f"{done} of {total} ({event.done * 100 // event.total} %)" if event.total else done
    return (
        f"{event.done} of {event.total} {event.unit}"
        if event.total
        else f"{event.done} {event.unit}"
    )


def heading(event: AlternativeStarted | AlternativeFinished | Compared) -> str:
    """A line between the rows of stages, where several recipes are compared."""
    match event:
        case AlternativeStarted():
            return f"{event.recipe} with {event.runtime} ({event.index} of {event.count})"
        case AlternativeFinished():
            return f"{event.recipe}: {event.summary}"
        case Compared():
            return f"Kept: {event.recipe}, {event.why}."


class PlainLines:
    """One line when a stage starts, speaks or ends, and one every ten seconds while it works."""

    def __init__(self) -> None:
        self._last = 0.0
        self._said = ""

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def show(self, event: Event) -> None:
        """Print what is worth a line."""
        match event:
            case StageStarted():
                self._last = time.monotonic()
                narrate(f"[{event.index}/{event.count}] {event.title}")
            case StageProgress() if (
                time.monotonic() - self._last > _QUIET_S and amount(event) != self._said
            ):
                self._last = time.monotonic()
                self._said = amount(event)
                narrate(f"      {self._said}")
            case StageNote():
                narrate(f"      {event.text}")
            case StageFinished():
                how = "cached" if event.cached else f"done in {human_seconds(event.seconds)}"
                narrate(f"      {how}{': ' + event.summary if event.summary else ''}")
            case StageFailed():
                narrate("      failed" if event.fatal else f"      failed: {event.message}")
            case AlternativeStarted() | AlternativeFinished() | Compared():
                narrate(heading(event))


class LiveRows:
    """A row per stage: mark, title, time, then a bar while it works and what it found when it is
    done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.table import Column, Table
        from rich.text import Text

        class Work(ProgressColumn):
            """Takes what the terminal leaves, and cuts its own text before anything else is pushed
            out."""

            def __init__(self) -> None:
                super().__init__(Column(ratio=1, no_wrap=True))
                self._bar = BarColumn(bar_width=16)

            def render(self, task: Task) -> Text | Table:
                says = Text(task.fields["says"], overflow="ellipsis", no_wrap=True)
                if task.stop_time is not None:
                    return says
                row = Table.grid(padding=(0, 1))
                row.add_row(self._bar.render(task), says)
                return row

        self._progress = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn("{task.description}", style="bold"),
            TimeElapsedColumn(),
            Work(),
            console=Console(stderr=True),
            refresh_per_second=10,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LiveRows:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line above the rows."""
        self._progress.console.print(text, markup=False, highlight=False)

    def clear(self) -> None:
        """Take the rows away."""
        for left in self._progress.task_ids:
            self._progress.remove_task(left)

    def show(self, event: Event) -> None:
        """Bring the stage's row up to date; the mark is a sign and not a colour alone."""
        if isinstance(event, AlternativeStarted | AlternativeFinished | Compared):
            self.say(heading(event))
            if isinstance(event, AlternativeFinished):
                self.clear()  # its line above says how it went
            return
        if isinstance(event, StageStarted):
            title = f"{event.index}/{event.count} {event.title}"
            self._tasks[event.stage] = self._progress.add_task(title, total=None, mark="•", says="")
            return
        task = self._tasks[event.stage]
        match event:
            case StageProgress():
                self._progress.update(
                    task, completed=event.done, total=event.total, says=amount(event)
                )
            case StageNote():
                self._progress.update(task, says=event.text)
            case StageFinished():
                says = f"cached  {event.summary}" if event.cached else event.summary
                self._progress.update(
                    task, completed=1, total=1, mark="[green]✓[/green]", says=says
                )
            case StageFailed():
                self._progress.update(task, mark="[red]✗[/red]", says="failed")
        if isinstance(event, StageFinished | StageFailed):
            self._progress.stop_task(task)
