"""Step 5: a row per stage, memory as it is taken, what is said; cancel that ends the engine's
process; retry."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Log, Sparkline, Static

from packager.errors import from_foreign
from packager.events import StageMemory, StageProgress
from packager.units import human_bytes, human_seconds
from tui import package_outlook
from tui import progress as model
from tui.progress import Failure, Progress, advance, stopped
from tui.screens.base import BACK, COPY, StepScreen
from tui.stage_rows import stage_rows
from tui.widgets.pane import Fitted, Pane
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.events import Event
    from packager.package.package import Package
    from packager.pipeline.adapter_package import AdapterPlan
    from packager.plan.plan import Plan

_REDRAW_S = 0.1


class Advanced(Message):
    """The build is further on; of several that wait only the newest is drawn."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def can_replace(self, message: Message) -> bool:
        """Progress coalesces: every one carries the whole state."""
        return isinstance(message, Advanced)


class Ended(Message):
    """The build is over; `package` is None where there is none."""

    def __init__(self, progress: Progress, package: Package | None) -> None:
        super().__init__()
        self.progress, self.package = progress, package


class BuildScreen(StepScreen):
    """Runs the plan in a worker thread as soon as it is shown."""

    STEP = 5
    CSS_PATH = "build.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "c",
            "cancel",
            "Cancel",
            id="build.cancel",
            tooltip="End the build; finished stages stay in the cache",
        ),
        Binding(
            "r",
            "retry",
            "Retry",
            id="build.retry",
            tooltip="Build again; what was finished is not done twice",
        ),
        Binding(
            "e",
            "engine",
            "Engine's output",
            id="build.engine",
            tooltip="What the engines themselves print, or what the build says",
        ),
        Binding(
            "enter",
            "result",
            "Result",
            id="build.result",
            tooltip="Predicted against measured, budgets, files",
        ),
        BACK,
        COPY,
    ]

    def __init__(
        self,
        plan: Plan | AdapterPlan,
        command: str,
        progress: Progress | None = None,
        stages: Mapping[str, str] | None = None,
        on: str | None = None,
    ) -> None:
        """With a `progress` nothing is started: the screen shows that build. `stages` are titles by
        name, those of a whole build unless given; `on` another machine the result is measured."""
        super().__init__()
        self._titles, self._machine = stages, on
        self.plan, self.command = plan, command
        self.progress = progress or Progress(())
        self._start = progress is None
        self._cancel = threading.Event()
        self._leave = False
        self._engine = False
        self._lines = 0
        self._engine_text: str | None = None
        self._began_at = 0.0
        self._free = 0
        self._ended_at: float | None = None
        self.package: Package | None = None

    def body(self) -> ComposeResult:
        """Rows of stages, memory, log."""
        with Vertical(id="stages"):
            yield Fitted(id="stage-rows")
        with Horizontal(id="build-memory"):
            yield Static(id="memory-now")
            yield Sparkline([], id="memory-line")
        yield Problem(id="build-problem")
        with Horizontal(id="build-below"):
            yield Log(id="log", auto_scroll=True)
            with Pane(id="build-what"):
                yield Static(id="build-what-text")

    def on_mount(self) -> None:
        """Begin."""
        self.query_one("#stages").border_title = Content(self.plan.name)
        self.query_one("#build-memory").border_title = "Memory of the running stage"
        self.query_one("#log").border_title = "Log"
        self.query_one("#build-what").border_title = "What is built"
        what = package_outlook.built(self.plan, self.command)
        self.query_one("#build-what-text", Static).update(Content.assemble(*what))
        self.set_focus(self.query_one("#log"))
        # What the stages may take: the limit beside the line of what they take.
        self._free = self.services.memory()[1]
        if self._start:
            self._begin()
            self.set_interval(_REDRAW_S * 5, self._tick)
        else:
            self._show(self.progress)

    def on_unmount(self) -> None:
        """However the screen goes, the engine's process goes with it."""
        self._cancel.set()
        if self._start and self._ended_at is None:
            self.pack.measuring = ""

    def on_screen_resume(self) -> None:
        """On top again: draw what happened meanwhile."""
        self._tick()
        self.refresh_bindings()

    def _begin(self) -> None:
        from packager.pipeline.run import STAGES

        self._cancel.clear()
        # A build takes all cores, and measures at its end: nothing else is measured beside it.
        self.pack.measuring = self.plan.name
        self.query_one(Problem).clear()
        self.query_one(Log).clear()
        self._lines = 0
        self._began_at, self._ended_at = self.services.clock(), None
        titles = STAGES if self._titles is None else self._titles
        self._show(model.before(titles, self.services.expected(self.plan)))
        self._build(self.progress)

    @work(thread=True, exclusive=True, group="build")
    def _build(self, progress: Progress) -> None:
        """Advance the frozen state by every event and post it; closing the generator ends the
        engine's process."""
        clock, last, package = self.services.clock, 0.0, None
        failure: Failure | None = None
        try:
            events: Generator[Event, None, Package] = self.services.build(self.plan)
            try:
                while not self._cancel.is_set():
                    event = next(events)
                    progress = advance(progress, event, clock())
                    # What comes often is drawn ten times a second, everything else at once.
                    if (
                        not isinstance(event, StageProgress | StageMemory)
                        or clock() - last >= _REDRAW_S
                    ):
                        last = clock()
                        self.post_message(Advanced(progress))
            except StopIteration as stop:
                package = stop.value
            finally:
                events.close()
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            failure = Failure("", known.message, known.hint)
        if package is None:
            progress = stopped(progress, failure, clock())
        self.post_message(Ended(progress, package))

    @on(Advanced)
    def _advanced(self, message: Advanced) -> None:
        if self.progress.state == "stopping":
            return
        self._show(message.progress)

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        from dataclasses import replace

        self.package = message.package
        done = message.package is not None
        self._ended_at = self.services.clock()
        self.pack.measuring = ""
        self._show(replace(message.progress, state="done") if done else message.progress)
        if message.package is not None:
            self.pack.made.append(message.package.path.absolute())
            self.pack.tell_the_desktop(f"{self.plan.name} is built")
        elif message.progress.state == "failed":
            self.pack.tell_the_desktop(f"{self.plan.name} was not built")
        if message.progress.state == "failed" and not self.on_top:
            self.notify(
                "The build screen says why.",
                title=f"{self.plan.name} was not built",
                severity="error",
            )
        if self._leave:
            self.app.exit(0)
        elif message.package is not None:
            if self.on_top:
                self.action_result()
            else:
                self.notify(f"{self.plan.name} is built.", title="Done")

    def _show(self, progress: Progress) -> None:
        changed = progress.state != self.progress.state
        self.progress = progress
        if changed:
            # The footer is made anew by this; a build that goes on needs no other one.
            self.refresh_bindings()
        self._tick()
        failure = progress.failure
        if failure is not None:
            titles = {stage.name: stage.title for stage in progress.stages}
            where = titles.get(failure.stage, "The build")
            self.query_one(Problem).show(
                f"{where}: {failure.message}",
                failure.hint,
                "r tries again, ctrl+y copies this, e shows the engine's output, Esc goes back",
            )
        if progress.state == "cancelled" and not self.query_one(Problem).text:
            self.query_one(Problem).show(
                "The build was cancelled; no package was written.",
                "Finished stages are in the cache.",
                "r builds again and does only what is missing, Esc goes back",
            )
        if not self._engine:
            log = self.query_one(Log)
            log.write_lines(progress.lines[self._lines :])
            self._lines = len(progress.lines)

    @on(Fitted.Resized)
    def _tick(self) -> None:
        """Rows and memory, with the time that passed; nothing is drawn below another screen."""
        if not self.on_top:
            return
        width, now = self.query_one("#stage-rows").content_size.width, self.services.clock()
        parts = stage_rows(self.progress.stages, width, now)
        self.query_one("#stage-rows", Static).update(Content.assemble(*parts))
        memory = self.progress.memory
        now_text = (
            f"{human_bytes(memory[-1])}, peak {human_bytes(max(memory))}"
            if memory
            else "nothing taken yet"
        )
        state = {"stopping": "stopping …", "cancelled": "cancelled", "done": "done"}
        self.query_one("#memory-now", Static).update(
            f"{now_text}  {state.get(self.progress.state, '')}\n{human_bytes(self._free)} were free"
        )
        self.query_one("#stages").border_subtitle = self._times(now)
        self.query_one(Sparkline).data = [float(size) for size in memory]
        if self._engine:
            self._engine_lines()

    def _times(self, now: float) -> str:
        """How long the build has taken in all, and what is left of it, else of the running stage,
        where that is known."""
        began = self._began_at or min(
            (stage.started for stage in self.progress.stages if stage.started is not None),
            default=None,
        )
        if not began:
            return ""
        end = now if self._ended_at is None else self._ended_at
        total = f"{human_seconds(max(0.0, end - began))} so far"
        if not self.progress.busy:
            return f"{human_seconds(max(0.0, end - began))} in all"
        left, running = self.progress.left(now), self.progress.running
        if left is not None:
            return f"{total}, {left}"
        own = running.left(now) if running is not None else None
        return total if own is None else f"{total}, about {model.roughly(own)} left in this stage"

    def _engine_lines(self) -> None:
        running = self.progress.running or next(
            (stage for stage in reversed(self.progress.stages) if stage.started is not None), None
        )
        text = self.services.engine_log(running.name) if running is not None else ""
        log = self.query_one(Log)
        if text != self._engine_text:
            self._engine_text = text
            log.clear()
            log.write(text or "The engine has printed nothing.")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Cancel while it runs, retry once it has failed, the result when there is one."""
        if action == "cancel":
            return self.progress.state == "running"
        if action == "retry":
            return self.progress.state in ("failed", "cancelled")
        return self.package is not None if action == "result" else True

    def action_cancel(self) -> None:
        """Ask the worker to stop; its generator closes, which ends the engine's process."""
        from dataclasses import replace

        self._cancel.set()
        self._show(replace(self.progress, state="stopping"))

    def action_retry(self) -> None:
        """The same plan again."""
        self._begin()

    def action_engine(self) -> None:
        """Switch the log."""
        self._engine = not self._engine
        log = self.query_one(Log)
        log.clear()
        log.border_title = "The engine's own output" if self._engine else "Log"
        self._lines = 0
        self._engine_text = None
        self._show(self.progress)

    def action_result(self) -> None:
        """To the last step."""
        from tui.screens.result import ResultScreen

        if self.package is not None:
            machine, self._machine = self._machine, None
            self.app.push_screen(ResultScreen(self.package, machine))

    def action_back(self) -> None:
        """A running build is not left behind unseen: ask."""
        if self.progress.busy:
            self._ask("Cancel this build?", lambda: None)
        else:
            super().action_back()

    @property
    def busy(self) -> bool:
        """Whether the build runs."""
        return self.progress.busy

    def ask_to_leave(self) -> None:
        """The person wants to quit while this build runs."""

        def leave() -> None:
            self._leave = True

        self._ask("Quit and stop the build?", leave, "Quit")

    def _ask(self, question: str, then: Any, deed: str = "Cancel the build") -> None:
        from tui.screens.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            then()
            if self.progress.busy:
                self.action_cancel()
            elif self._leave:
                self.app.exit(0)

        detail = (
            f"{self.plan.name} is being built. It will be cancelled; no package is written, "
            "and finished stages stay in the cache."
        )
        self.app.push_screen(ConfirmScreen(question, detail, deed, "Keep building"), answered)

    def copied(self) -> tuple[str, str] | None:
        """The log."""
        return "\n".join(self.progress.lines), "the log"
