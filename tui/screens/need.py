"""Step 2: what is it for? A use case with its floors explained, limits on sliders, and where the
weights come from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from packager.errors import PackError
from packager.escapes import command
from packager.need.usecases import use_case, use_case_names
from packager.need.workload import merge
from tui import describe, explain
from tui.ask import DeploymentProfile
from tui.limits import FIELDS, INPUTS, SOMETIMES, applies, flag, reads
from tui.options import OPTIONS, cleared, flags, listed
from tui.screens.base import BACK, COPY, StepScreen
from tui.screens.fetch import FetchScreen
from tui.screens.need_messages import Unserved
from tui.screens.options import OptionsScreen
from tui.widgets.languages import LanguageLine
from tui.widgets.lists import VimList
from tui.widgets.own_model import OwnModel
from tui.widgets.pane import Pane
from tui.widgets.preview import Preview
from tui.widgets.problem import Problem
from tui.widgets.profile_lines import ProfileLines
from tui.widgets.slider import Choice, Slider

if TYPE_CHECKING:
    from packager.need.workload import Workload
    from packager.sources.hub_file import HubFile
    from tui.ask import Ask
    from tui.screens.candidates import CandidatesScreen
    from tui.table import View


class NeedScreen(StepScreen):
    """The workload as the person wishes it; nothing said means what the target and the use case
    say."""

    STEP = 2
    CSS_PATH = "need.tcss"
    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        **{flag(field): (f"#limit-{field}", label) for field, label in FIELDS},
        "--language": ("#languages", "Languages"),
        "--weights": ("#weights-folder", "Weights"),
        "--lora": ("#lora", "Adapters"),
        "--thinking": ("#thinking", "Thinking"),
        "--system-prompt": ("#system-prompt", "System text"),
        "--tools": ("#tools", "Tools"),
        "--sampling": ("#sampling", "Sampling"),
        "--use-case": ("#use-cases", "the use case"),
        "--hub-file": ("#hub-file", "the file"),
        "--warm": ("#warm", "Warm start"),
        "--speculate": ("#speculate", "Speculate"),
        **{f"--{option.name}": ("", f"{option.label} (o)") for option in OPTIONS},
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "go_on", "Candidates", id="need.next", tooltip="See what runs there"),
        Binding(
            "r", "reset", "Reset", id="need.reset", tooltip="Forget every limit that was set here"
        ),
        Binding(
            "o",
            "options",
            "Options",
            id="need.options",
            tooltip="What few builds need: licences, conversion, quality gate, version",
        ),
        Binding("j", "app.focus_next", "Next", id="need.down", tooltip="The next line", show=False),
        Binding(
            "k",
            "app.focus_previous",
            "Previous",
            id="need.up",
            tooltip="The line before",
            show=False,
        ),
        Binding("down", "app.focus_next", "Next", show=False),
        Binding("up", "app.focus_previous", "Previous", show=False),
        Binding(
            "enter",
            "go_on",
            "Candidates",
            id="need.enter",
            tooltip="See what runs there",
            show=False,
        ),
        BACK,
        COPY,
    ]

    def __init__(self, ask: Ask, view: View | None = None) -> None:
        """`view` is the filter and the order of the table in an earlier visit."""
        super().__init__()
        self.ask = ask
        self._unserved: frozenset[str] = frozenset()
        self._table: CandidatesScreen | None = None
        self._view = view
        self._waiting: dict[str, object] = {}
        self._options: OptionsScreen | None = None

    @property
    def base(self) -> Workload:
        """The workload where only the use case is said, and what comes in, how large or long: the
        prompt holds one."""
        plain, wish = self._plain, self.ask.wish
        given = {field: getattr(wish, field) for field in INPUTS if applies(field, plain)}
        return self._merged(modality=wish.modality, **given)

    @property
    def _plain(self) -> Workload:
        return self._merged(modality=self.ask.wish.modality)

    def _merged(self, **given: Any) -> Workload:
        return merge({"use_case": self.ask.wish.use_case, **given}, self.ask.target.workload)

    def _usual(self, field: str) -> Any:
        """What holds of a limit where nothing is said."""
        return getattr(self._plain if field in INPUTS else self.base, field)

    def body(self) -> ComposeResult:
        """Use cases on the left, limits on the right, the reason for the focused one below."""
        base = self.base
        with Horizontal(id="need"):
            yield VimList(*(Option(name, id=name) for name in use_case_names()), id="use-cases")
            with Vertical(id="need-right"):
                with VerticalScroll(id="limits", can_focus=False):
                    for field, label in FIELDS:
                        yield self._control(field, label)
                    yield LanguageLine(self._languages, base.languages)
                    yield OwnModel(self.ask)
                    yield ProfileLines(self.ask.profile)
                    yield Static(id="need-options", markup=False)
                    yield Static(id="need-options-list")
                with Container(id="need-below"):
                    with Pane(id="why"):
                        yield Static(id="why-text")
                        yield Problem(id="need-problem")
                    yield Preview(self.services, id="need-preview")

    def _control(self, field: str, label: str) -> Slider:
        """What slides is a slider that takes typed numbers; a few alternatives stand beside each
        other."""
        usual = self._usual(field)
        value = getattr(self.ask.wish, field)
        shown = usual if value is None else value
        if field == "prefer":
            return Choice(label, self._steps(field), shown, id=f"limit-{field}", usual=usual)
        return Slider(
            label,
            self._steps(field),
            shown,
            id=f"limit-{field}",
            parse=partial(describe.parsed, field),
            read=partial(reads, field),
            unit=describe.UNITS[field],
            usual=usual,
        )

    @property
    def _gives(self) -> str:
        return use_case(self.base.use_case).task

    @property
    def _languages(self) -> tuple[str, ...]:
        """Those of the person, else the target's."""
        return self.base.languages if self.ask.wish.languages is None else self.ask.wish.languages

    def on_mount(self) -> None:
        """Stand on the use case."""
        cases = self.query_one("#use-cases", VimList)
        cases.border_title = "What is it for?"
        self.query_one("#limits").border_title = Content(f"Limits on {self.ask.target.name}")
        self.query_one("#why").border_title = "Why"
        cases.highlighted = use_case_names().index(self.base.use_case)
        self.set_focus(cases)
        self._ask_what_is_shown()
        self._show_lines()
        self._explain()
        self._look_what_is_served()

    @work(thread=True, exclusive=True, group="served")
    def _look_what_is_served(self) -> None:
        try:
            self.post_message(Unserved(self.services.unserved()))
        except PackError:
            # The candidates will say what is wrong with the catalogue.
            return

    @on(Unserved)
    def _mark_unserved(self, message: Unserved) -> None:
        """Say it here, before a person goes on to a table in which nothing can fit."""
        self._unserved = message.names
        cases = self.query_one("#use-cases", VimList)
        for name in sorted(message.names):
            marked = Content.assemble(f"{name} ", ("no runtime", "italic"))
            cases.replace_option_prompt(name, marked)
        self._explain()

    def on_screen_resume(self) -> None:
        """Back from the candidates or the options: what was said there is what is asked here."""
        options, self._options = self._options, None
        if options is not None:
            self._optioned(options.ask)
        table, self._table = self._table, None
        if table is None:
            return
        self._view = table.view
        if table.ask != self.ask:
            self.ask = table.ask
            self.query_one("#limits").border_title = Content(f"Limits on {self.ask.target.name}")
            cases = self.query_one("#use-cases", VimList)
            with cases.prevent(OptionList.OptionHighlighted):
                cases.highlighted = use_case_names().index(self.base.use_case)
            self._show_limits()
        self._explain()

    def _optioned(self, ask: Ask) -> None:
        self.ask = ask
        self._ask_what_is_shown()
        self._show_lines()
        self._show_limits()
        self._explain()

    def action_options(self) -> None:
        """To the lines that few builds need."""
        self._options = OptionsScreen(self.ask)
        self.app.push_screen(self._options)

    def _show_lines(self) -> None:
        """Only the lines that mean something for what a model of the use case gives."""
        for field in SOMETIMES:
            self.query_one(f"#limit-{field}").display = applies(field, self._plain)
        answers, wait = self._gives == "generate", self.query_one("#limit-max_ttft_ms", Slider)
        self.query_one(ProfileLines).display = answers
        words = command(flags(self.ask))
        line = self.query_one("#need-options", Static)
        line.update(f"{'Options (o)':<13}{words or 'all as usual'}")
        line.set_class(bool(words), "-said")
        self.query_one("#need-options-list", Static).update(Content.assemble(*listed(self.ask)))
        wait.label = "First token" if answers else "One text"
        wait.refresh()

    def _show_limits(self) -> None:
        for field, _ in FIELDS:
            value, usual = getattr(self.ask.wish, field), self._usual(field)
            self.query_one(f"#limit-{field}", Slider).show(
                self._steps(field), usual if value is None else value, usual
            )

    def _steps(self, field: str) -> list[tuple[object, str]]:
        return [
            (value, reads(field, value)) for value, _ in describe.steps(field, self._usual(field))
        ]

    @on(OptionList.OptionHighlighted, "#use-cases")
    def _case(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_index != event.option_list.highlighted:
            # The list has moved on since.
            return
        name = event.option.id
        default = self.ask.target.workload.use_case
        self.ask = self.ask.wishing(use_case=None if name == default else name)
        self._ask_what_is_shown()
        self._show_lines()
        self._show_limits()
        self._explain()

    def _ask_what_is_shown(self) -> None:
        """What the use case has no line for is not asked; it waits for one that has."""
        for field in SOMETIMES:
            value = getattr(self.ask.wish, field)
            if value is not None:
                self._waiting[field] = value
            shown = self._waiting.get(field) if applies(field, self._plain) else None
            self.ask = self.ask.wishing(**{field: shown})

    @on(Input.Submitted)
    @on(OptionList.OptionSelected, "#use-cases")
    def _case_chosen(self) -> None:
        self.action_go_on()

    @on(Slider.Moved)
    def _moved(self, event: Slider.Moved) -> None:
        field = str(event.slider.id).removeprefix("limit-")
        if field != event.slider.id:
            wished = None if event.value == self._usual(field) else event.value
            self.ask = self.ask.wishing(**{field: wished})
            self._waiting.pop(field, None)
            if field in INPUTS:
                self._show_limits()
        self._explain()

    @on(Input.Changed, "#languages")
    def _spoken(self) -> None:
        # A word that is still being typed is no mistake: what is wrong is said on the way on.
        try:
            self._take_languages()
        except PackError:
            return
        self._explain()

    def _take_languages(self) -> None:
        wanted = self.query_one(LanguageLine).codes
        self.ask = self.ask.wishing(languages=None if wanted == self.base.languages else wanted)

    def on_descendant_focus(self) -> None:
        """Explain the line that was come to."""
        self._explain()

    def _explain(self) -> None:
        """The reason of the focused line: of a use case its summary and floors, of a limit its
        source. What fits is asked with it."""
        self.query_one(Preview).question(self.ask)
        focused = self.focused
        own, profile = self.query_one(OwnModel), self.query_one(ProfileLines)
        if line := own.explain(focused) or profile.explain(focused):
            parts: explain.Parts = [(line, "")]
        elif isinstance(focused, Input) and focused.id == "languages":
            parts = [(f"{sentence}\n", "") for sentence in describe.spoken(self._languages)]
        elif isinstance(focused, Slider):
            parts = explain.limit(str(focused.id).removeprefix("limit-"), self.ask, self.base)
        else:
            parts = explain.case(self.base, self.ask.target, self._unserved)
        self.query_one("#why-text", Static).update(Content.assemble(*parts))

    def action_go_on(self) -> None:
        """To the candidates, unless the wishes contradict each other or the folder is none."""
        problem = self.query_one("#need-problem", Problem)
        problem.clear()
        try:
            self._take_languages()
            self.ask = self.query_one(OwnModel).into(self.ask)
            self.ask = replace(self.ask, profile=self._profile())
            self.ask.workload()
        except PackError as error:
            self.refuse(problem, error)
            return
        if self.ask.hub_file is not None and self.ask.hub_file.file is None:
            self.app.push_screen(FetchScreen(self.ask.hub_file, self.ask.options), self._fetched)
        else:
            self._to_candidates()

    def _fetched(self, answer: HubFile | PackError | None) -> None:
        """The file is here, or why it is not, or the person gave up."""
        if isinstance(answer, PackError):
            self.refuse(self.query_one("#need-problem", Problem), answer)
        elif answer is not None and self.ask.hub_file is not None:
            taken = replace(self.ask.hub_file, file=answer)
            self.query_one(OwnModel).fetched(taken)
            self.ask = replace(self.ask, hub_file=taken)
            self._to_candidates()

    def _to_candidates(self) -> None:
        from tui.screens.candidates import CandidatesScreen

        self._table = CandidatesScreen(self.ask, self._view)
        self.app.push_screen(self._table)

    def _profile(self) -> DeploymentProfile:
        """How the model is to behave; nothing is said to one that gives no text."""
        if self._gives != "generate":
            return DeploymentProfile()
        return self.query_one(ProfileLines).checked()

    def action_reset(self) -> None:
        """Every limit as the use case has it, and the model as its checkpoint has it."""
        self.ask = cleared(self.ask.wishing(languages=None, **dict.fromkeys(dict(FIELDS))))
        self._waiting.clear()
        self.query_one(LanguageLine).show_codes(self.base.languages, self.base.languages)
        self.query_one(ProfileLines).reset()
        self._show_lines()
        self._show_limits()
        self._explain()

    def leaving(self) -> None:
        """What stands here is what the next device is asked for."""
        asked = replace(self.ask, profile=self.query_one(ProfileLines).value)
        self.pack.need = self.query_one(OwnModel).standing(asked), self._view

    def home(self) -> None:
        """Out of a text field, to the last line of the limits that is none."""
        self.set_focus(self.query_one("#weights", Slider))

    def copied(self) -> tuple[str, str] | None:
        """The flags of the workload and of the profile."""
        profile = self.query_one(ProfileLines).value.flags() if self._gives == "generate" else []
        words = command([*profile, *self.ask.wish.flags(), *self.ask.options.flags()])
        return words or "(no flags: all as the use case asks)", "the flags of this need"
