"""A sweep as it runs: a row per cell, the stages of the one at work, what is said, when it ends.

Nothing is lost however it is left: every finished cell has its row on the disk, every finished
stage lies in the cache, and the same command goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Log, Static

from packager.errors import from_foreign
from packager.events import Event, StageMemory, StageProgress
from packager.sweep.events import SweepEvent
from packager.units import human_bytes, human_seconds
from tui.screens.base import BACK, COPY, StepScreen
from tui.stage_rows import stage_rows
from tui.sweep import MARKS, CellState, Follower, Sweep, planned
from tui.table import shortened
from tui.widgets.lists import VimTable
from tui.widgets.pane import Fitted
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.sweep.matrix import Planned

_REDRAW_S = 0.1
_COLUMNS = ("", "cell", "files", "memory", "tok/s", "outcome")
_STYLES = {"running": "bold", "failed": "bold {}", "refused": "{}", "waiting": "dim"}
_LEAST, _FIXED = 36, 66
"""Cells in which a name tells two cells apart, and those of all else in a row."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is shown: the sweep's name, its cells in order, and what starts it."""

    name: str
    cells: tuple[Planned, ...]
    start: Callable[[], Generator[Event | SweepEvent, None, Any]]


class Advanced(Message):
    """The sweep is further on; `places` of the cells that changed since the last message."""

    def __init__(self, sweep: Sweep, places: frozenset[int]) -> None:
        super().__init__()
        self.sweep, self.places = sweep, places


class SweepScreen(StepScreen):
    """Runs the sweep in a worker thread as soon as it is shown."""

    HEADING = "Sweep"
    CSS_PATH = "sweep.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "c",
            "cancel",
            "Stop",
            id="sweep.cancel",
            tooltip="End the sweep; what is finished stays, and the same plan continues",
        ),
        BACK,
        COPY,
    ]

    def __init__(
        self,
        job: Job,
        sweep: Sweep | None = None,
        at_end: Callable[[Sweep], None] = lambda _: None,
    ) -> None:
        """With a `sweep` nothing is started: the screen shows it as it stands. `at_end` is told how
        it ended."""
        super().__init__()
        self._at_end = at_end
        self.sweep = sweep or planned(job.cells)
        self._job, self._start = job, sweep is None
        self._cancel = threading.Event()
        self._leave = False
        self._lines = 0

    def body(self) -> ComposeResult:
        """Cells, stages, log."""
        yield VimTable(id="sweep-cells", cursor_type="row", zebra_stripes=True)
        with Vertical(id="sweep-stages"):
            yield Fitted(id="sweep-stage-rows")
        yield Problem(id="sweep-problem")
        yield Log(id="sweep-log", auto_scroll=True)

    def on_mount(self) -> None:
        """Begin."""
        table = self.query_one(VimTable)
        table.border_title = Content(self._job.name)
        self.query_one("#sweep-stages").border_title = "At work"
        self.query_one("#sweep-log").border_title = "Log"
        for title in _COLUMNS:
            table.add_column(title, key=title)
        for place, one in enumerate(self.sweep.cells):
            table.add_row(*self._texts(one), key=str(place))
        self.set_focus(table)
        if self._start:
            self.pack.measuring = self._job.name
            self._run()
        self.set_interval(_REDRAW_S * 5, self._tick)
        self._draw(self.sweep, frozenset())

    def on_unmount(self) -> None:
        """However the screen goes, the work ends with it."""
        self._cancel.set()
        if self._start and self.sweep.busy:
            self.pack.measuring = ""

    def on_screen_resume(self) -> None:
        """On top again: draw what happened meanwhile."""
        self._tick()

    @work(thread=True, exclusive=True, group="sweep")
    def _run(self) -> None:
        """Advance the frozen state by every event and post it; closing the generator ends what is
        at work."""
        from packager.pipeline.run import STAGES

        clock, last, places = self.services.clock, 0.0, frozenset[int]()
        follower = Follower(self.sweep, STAGES)
        # Any: JSON of an event.
        end: dict[str, Any] = {"state": "stopped"}
        try:
            with closing(self._job.start()) as events:
                while not self._cancel.is_set():
                    event = next(events)
                    sweep = follower.advance(event, clock())
                    places |= sweep.changed
                    often = isinstance(event, StageProgress | StageMemory)
                    if not often or clock() - last >= _REDRAW_S:
                        last = clock()
                        self.post_message(Advanced(sweep, places))
                        places = frozenset()
        except StopIteration:
            end = {"state": "done"}
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            end = {
                "state": "failed",
                "problem": known.message,
                "hint": known.hint,
                "exit_code": int(known.exit_code),
            }
        self.post_message(Advanced(replace(follower.sweep, stages=None, **end), places))

    @on(Advanced)
    def _advanced(self, message: Advanced) -> None:
        sweep = message.sweep
        if self.sweep.state == "stopping" and sweep.state == "running":
            sweep = replace(sweep, state="stopping")
        ended = self.sweep.busy and not sweep.busy
        self._draw(sweep, message.places)
        if ended:
            self._ended()

    def _ended(self) -> None:
        self.pack.measuring = ""
        self._at_end(self.sweep)
        self.refresh_bindings()
        if self._leave:
            self.app.exit(0)
            return
        self.pack.tell_the_desktop(f"The sweep {self._job.name} has ended")
        if self.sweep.problem:
            self.query_one(Problem).show(self.sweep.problem, self.sweep.hint, self._way_out)
        elif self.sweep.state == "stopped":
            self.query_one(Problem).show(
                "The sweep was stopped: every finished cell and stage is kept.",
                "The same plan continues from there.",
                self._way_out,
            )
        else:
            end = "Esc goes back." if self._inside else "q writes the report and leaves."
            self.notify(end, title="The sweep has ended")

    @property
    def _inside(self) -> bool:
        """Whether another screen stands before this one."""
        return self in self.app.screen_stack[2:]

    @property
    def _way_out(self) -> str:
        return "Esc goes back" if self._inside else "q leaves"

    def _draw(self, sweep: Sweep, places: frozenset[int]) -> None:
        table = self.query_one(VimTable)
        self.sweep = sweep
        for place in sorted(places):
            for title, text in zip(_COLUMNS, self._texts(sweep.cells[place]), strict=True):
                table.update_cell(str(place), title, text, update_width=True)
        follows = table.cursor_row in {place - 1 for place in places} | places
        running = next((place for place in places if sweep.cells[place].status == "running"), None)
        if running is not None and follows:
            # The cursor goes along while nobody has moved it away.
            table.move_cursor(row=running)
        log = self.query_one(Log)
        log.write_lines(sweep.lines[self._lines :])
        self._lines = len(sweep.lines)
        self._tick()

    @on(Fitted.Resized)
    def _tick(self) -> None:
        """Counts, forecast and stages, with the time that passed."""
        if not self.on_top:
            return
        now = self.services.clock()
        self.query_one(VimTable).border_subtitle = self._times(now)
        rows = self.query_one("#sweep-stage-rows", Static)
        width = rows.content_size.width
        stages = self.sweep.stages
        if stages is None:
            rows.update("No stage runs in this process." if self.sweep.busy else "")
            return
        shown = stages.stages
        if self.has_class("-short") or self.has_class("-flat"):
            # One line is what a small window has room for.
            shown = (stages.running,) if stages.running is not None else shown[:1]
        rows.update(Content.assemble(*stage_rows(shown, width, now)))

    def _times(self, now: float) -> str:
        """How many cells are done, and when the last one will be."""
        sweep = self.sweep
        settled = len(sweep.cells) - sweep.count("waiting", "running")
        words = [f"{settled} of {len(sweep.cells)}"]
        failed = sweep.count("failed")
        words += [f"{failed} failed"] if failed else []
        left = sweep.left(now)
        if left:
            until = datetime.now() + timedelta(seconds=left)
            words.append(f"about {human_seconds(left)} left, until {until:%H:%M}")
        state = {"stopping": "stopping …", "stopped": "stopped", "done": "done"}
        words += [state[sweep.state]] if sweep.state in state else []
        return ", ".join(words)

    def _texts(self, one: CellState) -> list[Text]:
        """The cells of a row; what is predicted is marked as such."""
        # A theme's own red: the terminal's is hard to read on many a background.
        ansi = self.app.current_theme.ansi
        red = "red" if ansi else Color.parse(self.app.theme_variables["text-error"]).hex6
        style = _STYLES.get(one.status, "").format(red)
        about = "~" if one.predicted else ""
        room = max(_LEAST, self.app.size.width - _FIXED)

        def size(value: float | None) -> str:
            return "" if value is None else f"{about}{human_bytes(value)}"

        speed = "" if one.decode_tps is None else f"{about}{one.decode_tps:.1f}"
        texts = [
            Text(MARKS[one.status], style),
            Text(shortened(one.cell.label, room), style),
            Text(size(one.artifact_bytes), style, justify="right"),
            Text(size(one.memory_bytes), style, justify="right"),
            Text(speed, style, justify="right"),
            Text(one.says, style),
        ]
        return texts

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop while it runs; where nothing stands before this screen, Esc leads out of a part that
        has the whole window alone."""
        if action == "back":
            return self.maximized is not None or self._inside
        return self.sweep.state == "running" if action == "cancel" else True

    def action_cancel(self) -> None:
        """Ask the worker to stop; its generator closes, which ends what is at work."""
        self._cancel.set()
        self._draw(replace(self.sweep, state="stopping"), frozenset())
        self.refresh_bindings()

    def action_back(self) -> None:
        """A running sweep is not left behind unseen: ask."""
        if self.sweep.busy and self.maximized is None:
            self._ask("Stop the sweep?", lambda: None)
        else:
            super().action_back()

    @property
    def busy(self) -> bool:
        """Whether the sweep runs."""
        return self.sweep.busy

    def ask_to_leave(self) -> None:
        """The person wants to quit while the sweep runs."""

        def leave() -> None:
            self._leave = True

        self._ask("Quit and stop the sweep?", leave)

    def _ask(self, question: str, then: Callable[[], None]) -> None:
        from tui.screens.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            then()
            if self.sweep.busy:
                self.action_cancel()
            elif self._leave:
                self.app.exit(0)

        self.app.push_screen(
            ConfirmScreen(
                question,
                "Every finished cell and stage is kept; the same plan continues from there.",
                "Stop the sweep",
                "Keep going",
            ),
            answered,
        )

    def copied(self) -> tuple[str, str] | None:
        """The log."""
        return "\n".join(self.sweep.lines), "the log"
