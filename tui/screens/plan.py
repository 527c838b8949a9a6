"""Step 4: what will be built, what it will take and how fast it should be; the same as a command
line; where it goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from packager.errors import from_foreign, usage
from packager.files import expanded
from packager.units import human_bytes
from tui import explain, figures, outlook, package_outlook
from tui.ask import build_command, measured_on
from tui.screens.base import BACK, Failed, StepScreen
from tui.table import task
from tui.widgets.draft_choice import DraftChoice
from tui.widgets.pane import Fitted, Pane
from tui.widgets.paths import PathSuggester
from tui.widgets.problem import Problem
from tui.widgets.slider import Slider
from tui.widgets.stacked import Part, Stacked

if TYPE_CHECKING:
    from packager.errors import PackError
    from packager.package.package import Package
    from packager.plan.plan import Plan
    from packager.predict.memory import Footprint
    from packager.select import Candidate
    from tui.core import Found
    from tui.outlook import Outlook


_UNPACKED = 1.2
"""Times the size of the files from which on the weights in memory need a word."""
_CONTEXTS = "In another context, when it is full"


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan, what would stop it, what it leads to, the package that it would replace, and whether
    somebody else builds it now."""

    plan: Plan
    problems: tuple[PackError, ...]
    outlook: Outlook
    replaces: Package | None = None
    underway: bool = False


class Planned(Message):
    """The plan is made and checked."""

    def __init__(self, checked: Checked) -> None:
        super().__init__()
        self.checked = checked


class PlanScreen(StepScreen):
    """Footprint, forecast, reasons, command; Build starts only what nothing stands against."""

    STEP = 4
    CSS_PATH = "plan.tcss"
    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        "--out": ("#plan-folder", "the folder (f)"),
        "--speculate": ("#plan-draft", "Speculate"),
        "--recipe": ("", "step 3"),
        "--weights": ("", "step 2"),
        "--lora": ("", "Adapters in step 2"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter,b",
            "build",
            "Build",
            id="plan.build",
            tooltip="Fetch, convert, measure and package",
        ),
        Binding(
            "y,ctrl+y",
            "copy",
            "Copy command",
            id="screen.copy",
            tooltip="Copy the command line that does the same",
        ),
        Binding("f", "folder", "Folder", id="plan.folder", tooltip="Where the package is written"),
        BACK,
    ]

    def __init__(self, found: Found, candidate: Candidate) -> None:
        super().__init__()
        self.found, self.candidate, self.ask = found, candidate, found.ask
        self.out: Path | None = None
        self.checked: Checked | None = None

    def body(self) -> ComposeResult:
        """Footprint and forecast beside each other, then command and folder, what stands in the
        way, then why."""
        with Pane(id="plan"):
            with Horizontal(
                id="plan-top", classes="" if self.candidate.split is None else "-split"
            ):
                with Vertical(id="plan-memory"):
                    yield Static(id="plan-peak")
                    yield Stacked(id="plan-footprint")
                    if self.candidate.split is not None:
                        yield Static(id="plan-host-peak")
                        yield Stacked(id="plan-host")
                with Vertical(id="plan-speed"):
                    yield Fitted(id="plan-forecast")
            with Container(id="plan-middle"):
                with Vertical(id="plan-way"):
                    yield from self._command_lines()
                    yield Problem(id="plan-problem")
                with Vertical(id="plan-why"):
                    yield Static(id="plan-why-text")
            with Horizontal(id="plan-ahead"):
                with Vertical(id="plan-contexts"):
                    yield Fitted(id="plan-contexts-text")
                with Vertical(id="plan-build"):
                    yield Static(id="plan-build-text")
            with Horizontal(id="plan-more"):
                with Vertical(id="plan-recipes"):
                    yield Fitted(id="plan-recipes-text")
                with Vertical(id="plan-package"):
                    yield Static(id="plan-package-text")

    def _command_lines(self) -> ComposeResult:
        """The command line, the folder, what drafts tokens, and what stands in the folder."""
        with Vertical(id="plan-command"):
            yield Static(id="plan-command-text")
            with Horizontal(id="plan-out"):
                yield Static("package in ", id="plan-out-label")
                yield Input(id="plan-folder", compact=True, suggester=PathSuggester(folders=True))
            yield DraftChoice()
            yield Static(id="plan-replaces", markup=False)

    def on_mount(self) -> None:
        """Draw what is known at once; the plan is made and checked behind it."""
        for name, title in (
            ("memory", "Memory"),
            ("speed", "Speed"),
            ("why", "Why this one"),
            ("command", "The same from the command line"),
            ("contexts", _CONTEXTS),
            ("build", "The build, on this machine"),
            ("recipes", Content(f"{self.candidate.variant.name} in other recipes")),
            ("package", "The package"),
        ):
            self.query_one(f"#plan-{name}").border_title = title
        self.set_focus(self.query_one("#plan"))
        self._footprint(self.candidate)
        self._draw_command()
        self._draw_more()
        self.query_one("#plan-why-text", Static).update("checking …")
        self._plan()

    def _footprint(self, one: Candidate) -> None:
        device, split = self.ask.target.device, one.split
        has = "has for one model" if split is None else "has on its GPU"
        where = f" of {human_bytes(device.all_available_bytes)} that {self.ask.target.name} {has}"
        which = f" ({explain.layers(split)})" if split else ""
        files = f"; {human_bytes(one.artifact_bytes)} of model files"
        if one.footprint.weights > _UNPACKED * one.artifact_bytes:
            files += f", which the engine unpacks to {human_bytes(one.footprint.weights)} in memory"
        self.query_one("#plan-peak", Static).update(
            Content.assemble(
                (human_bytes(one.footprint.peak), "bold"), f" at its peak,{where}{which}{files}"
            )
        )
        if split is not None:
            beside = f" of {human_bytes(device.host_available_bytes)} of the system's memory"
            self.query_one("#plan-host-peak", Static).update(
                Content.assemble((human_bytes(split.host.peak), "bold"), beside)
            )
        self._stack("#plan-footprint", one.footprint, device.all_available_bytes)
        if one.split is not None:
            self._stack("#plan-host", one.split.host, device.host_available_bytes)

    def _stack(self, selector: str, prints: Footprint, limit: int) -> None:
        parts = [Part(*row) for row in explain.footprint(prints)]
        parts.append(Part("left", max(0, limit - prints.peak), "·", "$foreground-muted"))
        self.query_one(selector, Stacked).show(parts)

    def _draw_ahead(self) -> None:
        """What a longer context would cost, and what the build takes."""
        from packager.pipeline.run import STAGES

        if self.checked is None:
            return
        known = self.checked.outlook
        self.query_one("#plan-ahead").add_class("-shown")
        self.query_one("#plan-contexts").display = len(known.contexts) > 1
        width = max(20, self.query_one("#plan-contexts-text").content_size.width)
        rows = outlook.contexts(known.contexts, self.candidate.context, width)
        self.query_one("#plan-contexts-text", Static).update(Content.assemble(*rows))
        parts = outlook.build(known, STAGES, self.services.memory()[1])
        self.query_one("#plan-build-text", Static).update(Content.assemble(*parts))

    def _draw_more(self) -> None:
        """What only a large window has room for."""
        room = self.query_one("#plan-recipes").content_size
        rows = package_outlook.recipes(
            self.found.candidates, self.candidate, max(40, room.width), room.height
        )
        self.query_one("#plan-recipes-text", Static).update(Content.assemble(*rows))
        there = None if self.checked is None else self.checked.replaces
        now = None if there is None else there.contents
        made = package_outlook.package(self._drafted, self.ask.workload().context, now)
        self.query_one("#plan-package-text", Static).update(Content.assemble(*made))

    @on(Fitted.Resized)
    def _fit(self) -> None:
        """The same for another width; what stands in the way stays in view."""
        self._draw_forecast()
        self._draw_ahead()
        self._draw_more()
        self.query_one(Problem).reveal()

    def _draw_forecast(self) -> None:
        """The forecast for the width that it has; none before the first layout."""
        workload = self.ask.workload()
        room = self.query_one("#plan-forecast").content_size.width
        if not room:
            return
        width, known, what = max(20, room), self.candidate.forecast, task(self.candidate)
        parts = (
            explain.forecast(known, workload.prompt, workload.min_decode_tps, width)
            if what == "generate"
            else explain.one_text(known, what, workload.prompt, workload.max_ttft_ms, width)
        )
        self.query_one("#plan-forecast", Static).update(Content.assemble(*parts))

    def _draw_command(self) -> None:
        self.query_one("#plan-command-text", Static).update(
            Content.styled(self.command, "bold $text-accent")
        )

    @property
    def _drafted(self) -> Candidate:
        """The candidate with what drafts in the plan, where it is checked."""
        if self.checked is None:
            return self.candidate
        drafting = self.checked.plan.chosen.footprint.drafting
        footprint = replace(self.candidate.footprint, drafting=drafting)
        return replace(self.candidate, footprint=footprint)

    @property
    def command(self) -> str:
        """The command line that does what Build does."""
        return build_command(self.ask, self.candidate, self.out)

    @work(thread=True, exclusive=True, group="plan")
    def _plan(self) -> None:
        services = self.services
        try:
            plan = services.plan(services, self.ask, self.candidate, self.out)
            problems = tuple(services.problems(services, plan))
            ahead = services.outlook(services, self.ask, plan)
            replaced, underway = services.replaced(plan), services.underway(plan)
            self.post_message(Planned(Checked(plan, problems, ahead, replaced, underway)))
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            self.post_message(Failed(known))

    @on(Planned)
    def _planned(self, message: Planned) -> None:
        from packager.select.steps import steps

        self.checked = message.checked
        plan = message.checked.plan
        parts: explain.Parts = [(plan.why() + "\n", "")]
        if self.candidate.verdict == "chosen":
            for step in steps(self.found.candidates):
                parts += explain.step(step)
        parts += [(f"! {note}\n", "$text-warning") for note in self.candidate.notes]
        weights = package_outlook.weights(plan)
        parts += [("weights   ", "$foreground-muted"), (weights, "")]
        adapters = figures.adapters((one.location, one.scale) for one in plan.source.adapters)
        if adapters:
            parts += [("\nadapters  ", "$foreground-muted"), (adapters, "")]
        behaves = explain.profile(plan.profile)
        if behaves:
            parts += [("\nbehaves   ", "$foreground-muted"), (behaves, "")]
        self.query_one("#plan-why-text", Static).update(Content.assemble(*parts))
        self._footprint(self._drafted)
        drafting = plan.chosen.footprint.drafting is not None
        without = f"{_CONTEXTS}, without drafting" if drafting else _CONTEXTS
        self.query_one("#plan-contexts").border_title = without
        drafts = message.checked.outlook.drafts
        self.query_one(DraftChoice).offer(drafts, self.ask.profile.speculate, plan)
        self._draw_ahead()
        self._draw_more()
        replaced = self.query_one("#plan-replaces", Static)
        notes = package_outlook.stands(message.checked.replaces, message.checked.underway)
        replaced.display = bool(notes)
        replaced.update("\n".join(notes))
        folder = self.query_one("#plan-folder", Input)
        if not folder.value:
            with folder.prevent(Input.Changed):
                folder.value = str(plan.out)
        problem = self.query_one(Problem)
        if message.checked.problems:
            problems = message.checked.problems
            text = "\n".join(f"{one.message} {one.hint}" for one in problems)
            many = "" if len(problems) == 1 else f", for {len(problems)} reasons"
            why = usage(f"This build cannot start{many}:", text)
            # The folder is where one goes by hand: a plan that is checked again must not take the
            # focus there.
            self.refuse(problem, why, go=False)
        else:
            problem.clear()

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        self.checked = None
        self.query_one("#plan-why-text", Static).update("")
        self.refuse(self.query_one(Problem), message.error, go=False)

    @on(Slider.Moved, "#plan-draft")
    def _drafts_otherwise(self, event: Slider.Moved) -> None:
        """Another way of drafting: the command says so at once, and the plan is checked again."""
        self.ask = replace(self.ask, profile=replace(self.ask.profile, speculate=event.value))
        self.checked = None
        self._draw_command()
        self._plan()

    @on(Input.Changed, "#plan-folder")
    def _moved(self, event: Input.Changed) -> None:
        """Another folder: the command says so at once; it is checked when the field is left."""
        self.out = expanded(event.value).absolute() if event.value.strip() else None
        self.checked = None
        self._draw_command()

    @on(Input.Submitted, "#plan-folder")
    @on(Input.Blurred, "#plan-folder")
    def home(self) -> None:
        """Out of the field, and check again."""
        self.set_focus(self.query_one("#plan"))
        if self.checked is None:
            self._plan()

    def action_folder(self) -> None:
        """Into the field."""
        self.set_focus(self.query_one("#plan-folder", Input))

    def action_build(self) -> None:
        """Start, unless something stands against it."""
        from tui.screens.build import BuildScreen
        from tui.screens.confirm import ConfirmScreen

        problem = self.query_one(Problem)
        if problem.text:
            # It stands on the screen already: a sentence over it would cover what helps.
            problem.reveal()
            self.app.bell()
            return
        if self.checked is None:
            self.notify("The plan is still being checked.", timeout=2)
            return
        if self.pack.measuring:
            self.notify(
                f"{self.pack.measuring} is being measured or built, and a build would disturb it.",
                severity="warning",
            )
            return
        checked = self.checked
        lost = (
            figures.measurements_added(checked.replaces.contents)
            if checked.replaces is not None
            else 0
        )

        def answered(yes: bool | None) -> None:
            if yes:
                machine = measured_on(self.ask, self.candidate)
                self.app.push_screen(BuildScreen(checked.plan, self.command, on=machine))

        if not lost or checked.replaces is None:
            answered(True)
            return
        detail = f"{checked.replaces.path}\n{figures.replaced(checked.replaces.contents)}"
        self.app.push_screen(
            ConfirmScreen("Replace this package?", detail, "Build and replace", "Keep it"), answered
        )

    def copied(self) -> tuple[str, str] | None:
        """The command line."""
        return self.command, "the command"
