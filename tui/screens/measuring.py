"""A package is measured again, here or on another machine: one measurement at a time, its progress,
its end, and what becomes of its figures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Static

from packager.errors import PackError, from_foreign
from packager.events import StageNote, StageProgress
from packager.units import human_bytes, human_seconds
from tui.screens.base import Failed, StepScreen
from tui.screens.figures_dialog import FiguresScreen
from tui.screens.reach import ReachScreen
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.events import Event
    from packager.package.package import Package
    from packager.records import Measurement
    from tui.screens.reach import Place


class Busy(Message):
    """How far the work on a package is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, Busy)


class Benched(Message):
    """New figures of a package, beside the manifest's."""

    def __init__(self, package: Package, figures: Measurement) -> None:
        super().__init__()
        self.package, self.figures = package, figures


class Stopped(Message):
    """A measurement was stopped by hand."""


class MeasuringScreen(StepScreen):
    """A screen with a package under the cursor that can be measured, one at a time, with a line
    that says how far it is."""

    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        "--on": ("", "Machine (M)"),
        "--agent": ("", "Agent (M)"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "X",
            "stop",
            "Stop measuring",
            id="package.stop",
            tooltip="End the measurement; its figures are forgotten",
        ),
        Binding(
            "M",
            "bench_on",
            "Measure elsewhere",
            id="package.bench-on",
            tooltip="Measure on another machine, by ssh or adb; it needs no Python there",
            show=False,
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._stop = threading.Event()
        self._measured: Package | None = None
        self._benched_later: Benched | None = None
        self._leave = False
        self._work_text = ""
        self._began = 0.0

    def work_line(self) -> Static:
        """The line for the body: hidden while nothing is at work."""
        return Static(id="work-line", classes="work", markup=False)

    @property
    def package(self) -> Package | None:
        """The package that keys act on; None where there is none."""
        raise NotImplementedError

    def on_unmount(self) -> None:
        """A benchmark does not outlive its screen."""
        self._stop.set()
        if self._measured is not None:
            self.pack.measuring = ""

    @property
    def busy(self) -> bool:
        """Whether a measurement runs."""
        return self._measured is not None

    def on_mount(self) -> None:
        """The time of a measurement passes also while it says nothing."""
        self.set_interval(1.0, self._draw_work)

    def _say(self, text: str) -> None:
        self._work_text = text
        self._draw_work()

    def _draw_work(self) -> None:
        line = self.query_one("#work-line", Static)
        line.display = bool(self._work_text)
        if not self._work_text:
            return
        took = (
            f" · {human_seconds(self.services.clock() - self._began)}"
            if self._measured is not None
            else ""
        )
        line.update(
            f"● {self._work_text}{took}" + (" · X stops it" if self._measured is not None else "")
        )

    @on(Busy)
    def _busy_text(self, message: Busy) -> None:
        self._say(message.text)

    def _report(self, error: Exception, of: object = None) -> None:
        known = from_foreign(error)
        if known is None:
            raise error
        self.post_message(Failed(known, of))

    def action_bench(self) -> None:
        """Measure again, in a process of its own, and beside no other measurement."""
        package = self.package
        if package is not None:
            self._start(package, lambda: self.services.bench(self.services, package.path))

    def action_bench_on(self) -> None:
        """Ask for another machine, and measure there."""
        package = self.package
        if package is None or self._measured is not None:
            return

        def answered(place: Place | None) -> None:
            if place is not None:
                self.measure_at(package, place)

        self.app.push_screen(ReachScreen(package.manifest.name, self.pack.last_place), answered)

    def measure_at(self, package: Package, place: Place) -> None:
        """Measure a package on another machine, which is proposed for the next one as well."""
        self.pack.last_place = place
        self._start(
            package,
            lambda: self.services.bench_on(package.path, place.address, place.agent),
            f" on {place.address}",
        )

    def _start(
        self,
        package: Package,
        begin: Callable[[], Generator[Event, None, Measurement]],
        at: str = "",
    ) -> None:
        if not self.pack.may_measure(package.manifest.name):
            return
        self.query_one(Problem).clear()
        self._stop.clear()
        self._measured, self._began = package, self.services.clock()
        self._say(f"Measuring {package.manifest.name}{at}: every file is checked first")
        self.refresh_bindings()
        self._bench(package, begin)

    @work(thread=True, exclusive=True, group="package")
    def _bench(
        self, package: Package, begin: Callable[[], Generator[Event, None, Measurement]]
    ) -> None:
        try:
            events = begin()
            try:
                while not self._stop.is_set():
                    event = next(events)
                    if isinstance(event, StageProgress):
                        self.post_message(Busy(f"Measuring {package.manifest.name}: {_far(event)}"))
                    elif isinstance(event, StageNote):
                        self.post_message(Busy(f"Measuring {package.manifest.name}: {event.text}"))
                self.post_message(Stopped())
            except StopIteration as stop:
                self.post_message(Benched(package, stop.value))
            finally:
                events.close()
        except (PackError, OSError) as error:
            self._report(error, package)

    def _over(self) -> None:
        """Nothing is measured any more, whatever came of it."""
        self._measured = None
        self.pack.measuring = ""
        self._say("")
        self.refresh_bindings()
        if self._leave:
            self.app.exit(0)

    @on(Benched)
    def _benched(self, message: Benched) -> None:
        """Show the figures; where another screen is on top they wait, and are only announced."""
        self._over()
        if self.on_top:
            self._show_figures(message)
            return
        self._benched_later = message
        self.notify(
            "The figures are shown when you come back to it.",
            title=f"{message.package.manifest.name} is measured",
        )

    def on_screen_resume(self) -> None:
        """What ended meanwhile is shown now."""
        waiting, self._benched_later = self._benched_later, None
        if waiting is not None:
            self._show_figures(waiting)

    def _show_figures(self, message: Benched) -> None:
        def closed(saved: bool | None) -> None:
            if not saved:
                return
            try:
                self.figures_kept(message.package)
            except (PackError, OSError) as error:
                # Somebody else may have moved the package since.
                self._report(error)

        self.app.push_screen(FiguresScreen(message.package, message.figures), closed)

    def figures_kept(self, package: Package) -> None:
        """The manifest of a package says more than it did: the screen reads it again."""
        raise NotImplementedError

    @on(Stopped)
    def _stopped(self) -> None:
        self._over()
        self.notify("Nothing was changed.", title="The measurement was stopped")

    @on(Failed)
    def _work_failed(self, message: Failed) -> None:
        # Other work on a package may fail while one is measured.
        if self._measured is not None and message.question is self._measured:
            self._over()
        elif self._measured is None:
            self._say("")
        if not self.on_top:
            self.notify(
                message.error.message, title="The work on a package failed", severity="error"
            )
        self.refuse(self.query_one(Problem), message.error)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop while a measurement runs, measure while none does."""
        if action == "stop":
            return self._measured is not None
        return self._measured is None if action in ("bench", "bench_on", "adapter") else True

    def action_stop(self) -> None:
        """The worker stops at the next event; its generator closes, which ends the engine's
        process."""
        self._stop.set()
        self._say("stopping …")

    def action_back(self) -> None:
        """A measurement that runs is not left behind unseen: ask."""
        if self._measured is None:
            super().action_back()
        else:
            self._ask("Stop this measurement?", False)

    def ask_to_leave(self) -> None:
        """The person wants to quit while a measurement runs."""
        self._ask("Quit and stop the measurement?", True)

    def _ask(self, question: str, leave: bool) -> None:
        from tui.screens.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            self._leave = leave
            if self._measured is not None:
                self.action_stop()
            elif leave:
                self.app.exit(0)

        name = self._measured.manifest.name if self._measured is not None else ""
        detail = (
            f"{name} is being measured. The figures will be forgotten; the package stays as it is."
        )
        self.app.push_screen(
            ConfirmScreen(
                question, detail, "Quit" if leave else "Stop measuring", "Keep measuring"
            ),
            answered,
        )


def _far(event: StageProgress) -> str:
    """How far a stage is: bytes as people read them, else what is counted."""
    if event.unit == "B":
        total = "" if event.total is None else f" of {human_bytes(event.total)}"
        return f"{human_bytes(event.done)}{total} sent"
    total = "" if event.total is None else f" of {event.total}"
    return f"{event.done}{total} {event.unit}"
