"""What else a build takes: lines that few builds need, each with what it means, beside the need."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from packager.errors import PackError
from packager.escapes import command
from tui.options import OPTIONS, YES, Option, WrongOption, cleared, flags, written
from tui.screens.base import BACK, COPY, StepScreen
from tui.widgets.pane import Pane
from tui.widgets.paths import PathSuggester
from tui.widgets.problem import Problem
from tui.widgets.slider import Check, Slider
from tui.widgets.text_line import TextLine

if TYPE_CHECKING:
    from tui.ask import Ask


class OptionsScreen(StepScreen):
    """Changes `ask` when it is left; a wrong line is said first, and leaving again forgets it."""

    STEP = 2
    CSS_PATH = "options.tcss"
    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        f"--{option.name}": (f"#{option.name}", option.label) for option in OPTIONS
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "done", "Done", id="options.done", tooltip="Take what stands here"),
        Binding("r", "reset", "Reset", id="options.reset", tooltip="Forget every line"),
        Binding("j,down", "app.focus_next", "Next", id="options.down", tooltip="The next line"),
        Binding(
            "k,up",
            "app.focus_previous",
            "Previous",
            id="options.up",
            tooltip="The line before",
            show=False,
        ),
        BACK,
        COPY,
    ]

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask
        self._refused: dict[str, str] = {}

    def body(self) -> ComposeResult:
        """The lines by their sections, and what the focused one means below or beside."""
        with Vertical(id="options"):
            with VerticalScroll(id="option-lines", can_focus=False):
                section = ""
                for option in OPTIONS:
                    if option.section != section:
                        section = option.section
                        yield Static(section, classes="option-section")
                    with Horizontal(classes="option"):
                        yield self._line(option)
                        yield Static(option.means, classes="option-means", markup=False)
            yield Problem(id="option-problem")
            with Pane(id="option-why"):
                yield Static(id="option-text", markup=False)

    def _line(self, option: Option) -> Widget:
        chosen = option.read(self.ask)
        if option.takes == "consent":
            steps = [("", "no"), (YES, option.example)]
            return Check(option.label, steps, chosen, id=option.name, usual="")
        paths = option.takes in ("file", "folder")
        return TextLine(
            option.label,
            option.name,
            chosen,
            example=option.example,
            suggester=PathSuggester(folders=option.takes == "folder") if paths else None,
        )

    def on_mount(self) -> None:
        """On the first line."""
        lines = self.query_one("#option-lines")
        lines.border_title = "Options of the build"
        lines.border_subtitle = "Enter takes them"
        self.query_one("#option-why").border_title = "Why"
        self.set_focus(self.query_one(f"#{OPTIONS[0].name}"))

    def on_descendant_focus(self) -> None:
        """Explain the line that was come to."""
        self._explain()

    @on(Input.Changed)
    @on(Slider.Moved)
    def _explain(self) -> None:
        """What the focused line means, and what all of them are as flags."""
        name = None if self.focused is None else self.focused.id
        means = next((option.means for option in OPTIONS if option.name == name), "")
        self.query_one("#option-text", Static).update(
            Content.assemble(means, (f"\n{self._flags()}", "$text-accent"))
        )

    def texts(self) -> dict[str, str]:
        """What stands on every line, by its name."""
        return {option.name: self._text(option) for option in OPTIONS}

    def _text(self, option: Option) -> str:
        if option.takes == "consent":
            return str(self.query_one(f"#{option.name}", Slider).value)
        return self.query_one(f"#{option.name}", Input).value

    def _taken(self) -> bool:
        """Whether all of it is what it can be; else it is said, and the line has the focus."""
        try:
            self.ask = written(self.ask, self.texts())
        except WrongOption as wrong:
            self._refuse(wrong.error)
            self.set_focus(self.query_one(f"#{wrong.name}"))
            return False
        except PackError as error:
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: PackError) -> None:
        hint = f"{error.hint} Or leave once more: these lines stay as they were.".strip()
        self.refuse(
            self.query_one(Problem), PackError(error.message, hint, error.exit_code), go=True
        )

    def action_back(self) -> None:
        """Out of a text field, else take the lines and leave."""
        if self.maximized is not None or isinstance(self.focused, Input):
            super().action_back()
        else:
            self.action_done()

    @on(Input.Submitted)
    def action_done(self) -> None:
        """Take the lines and leave; where one is wrong say so, and leave at the second time."""
        self.query_one(Problem).clear()
        stands = self.texts()
        if self._refused == stands or self._taken():
            self.app.pop_screen()
        else:
            self._refused = stands

    def home(self) -> None:
        """Out of a text field, to what it means."""
        self.set_focus(self.query_one("#option-why"))

    def action_reset(self) -> None:
        """Nothing said on any line."""
        self.ask = cleared(self.ask)
        self.query_one(Problem).clear()
        for option in OPTIONS:
            if option.takes == "consent":
                self.query_one(f"#{option.name}", Slider).choose("")
            else:
                self.query_one(f"#{option.name}-line", TextLine).show("")

    def _flags(self) -> str:
        """The lines as flags; those of before where one is half typed."""
        try:
            return command(flags(written(self.ask, self.texts())))
        except (PackError, WrongOption):
            return command(flags(self.ask))

    def copied(self) -> tuple[str, str] | None:
        """The flags of these lines."""
        return self._flags() or "(no flags)", "the flags of these options"
