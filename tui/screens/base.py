"""What every step of the walkthrough shares: the line on top, the footer, Esc, errors that can be
copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Resize
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from tui.app import LEAST
from tui.widgets.steps import Steps

if TYPE_CHECKING:
    from packager.errors import PackError
    from tui.app import PackApp
    from tui.services import Services

_NARROW = 100
BACK = Binding(
    "escape", "back", "Back", id="screen.back", tooltip="Out of a text field, or to the step before"
)
COPY = Binding(
    "y", "copy", "Copy", id="screen.copy", tooltip="Copy what this screen is about", show=False
)
"""Every screen lists these two last, so that the footer begins with what the screen is for."""


class Failed(Message):
    """A worker ended with an error that a person can act on."""

    def __init__(self, error: PackError, question: object = None) -> None:
        super().__init__()
        self.error, self.question = error, question


class Problem(Static):
    """An error in place: the sentence, the way on, and how to copy it. Hidden while there is
    none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="problem")
        self.text = ""

    def show(self, message: str, hint: str = "", keys: str = "y copies this") -> None:
        """Show an error."""
        from textual.content import Content

        self.text = f"{message} {hint}".strip()
        self.update(
            Content.assemble(
                ("✗ ", "bold $text-error"),
                message,
                ("\n" + hint if hint else "", "$foreground-muted"),
                (f"\n{keys}", "$foreground-muted italic"),
            )
        )
        self.add_class("-shown")

    def clear(self) -> None:
        """Show none."""
        self.text = ""
        self.remove_class("-shown")


class StepScreen(Screen[None]):
    """A screen of the walkthrough; `STEP` counts from 1, 0 stands beside it."""

    STEP: ClassVar[int] = 0
    HEADING: ClassVar[str] = ""
    AUTO_FOCUS = ""

    def compose(self) -> ComposeResult:
        """The step's own part between the line on top and the footer."""
        yield Steps(self.STEP, self.HEADING)
        yield from self.body()
        yield Footer()
        yield Static(
            f"The window is too small: {LEAST[0]} columns and {LEAST[1]} rows are needed.",
            classes="too-small",
        )

    def body(self) -> ComposeResult:
        """The step's own widgets."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        """A narrow footer has room for keys only, not for space around them."""
        footer = self.query_one(Footer)
        footer.compact = event.size.width < _NARROW
        footer.show_command_palette = event.size.width >= _NARROW

    @property
    def pack(self) -> PackApp:
        """The application, with its type."""
        from tui.app import PackApp

        assert isinstance(self.app, PackApp)
        return self.app

    @property
    def services(self) -> Services:
        """What the composition root handed over."""
        return self.pack.services

    @property
    def busy(self) -> bool:
        """Whether work goes on here that leaving would end: then `q` asks first."""
        return False

    def ask_to_leave(self) -> None:
        """The person wants to quit while this screen is busy."""
        raise NotImplementedError

    def home(self) -> None:
        """Where Esc leads from a text field."""
        self.focus_next()

    def action_back(self) -> None:
        """Leave a text field, else the step."""
        if isinstance(self.focused, Input):
            self.home()
        elif len(self.app.screen_stack) > 2:
            self.app.pop_screen()

    def action_copy(self) -> None:
        """Copy the error where there is one, else what the screen is about."""
        shown = [problem.text for problem in self.query(Problem) if problem.text]
        if shown:
            self.pack.copy("\n".join(shown), "the error")
            return
        found = self.copied()
        if found is not None:
            self.pack.copy(*found)

    def copied(self) -> tuple[str, str] | None:
        """A text and what to call it; None where there is nothing to copy."""
        return None
