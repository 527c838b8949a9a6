"""What every step of the walkthrough shares: the line on top, the footer, Esc, errors that can be
copied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Resize
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static

from tui.app import LEAST
from tui.widgets.keys import KeyLine
from tui.widgets.problem import Problem
from tui.widgets.steps import Steps

if TYPE_CHECKING:
    from packager.errors import PackError
    from tui.app import PackApp
    from tui.services import Services

BACK = Binding(
    "escape", "back", "Back", id="screen.back", tooltip="Out of a text field, or to the step before"
)
COPY = Binding(
    "y,ctrl+y",
    "copy",
    "Copy",
    id="screen.copy",
    tooltip="Copy the error, or else what the screen shows",
    show=False,
)
"""Every screen lists these two last, so that the footer begins with what the screen is for."""


class Failed(Message):
    """A worker ended with an error that a person can act on."""

    def __init__(self, error: PackError, question: object = None) -> None:
        super().__init__()
        self.error, self.question = error, question


class StepScreen(Screen[None]):
    """A screen of the walkthrough; `STEP` counts from 1, 0 stands beside it."""

    STEP: ClassVar[int] = 0
    HEADING: ClassVar[str] = ""
    CONTROLS: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """What stands on the screen for a flag of the command line: its selector, and what to call
    it."""
    AUTO_FOCUS = ""

    def compose(self) -> ComposeResult:
        """The step's own part between the line on top and the footer."""
        yield Steps(self.STEP, self.HEADING)
        yield from self.body()
        yield KeyLine()
        yield Static(
            f"The window is too small: {LEAST[0]} columns and {LEAST[1]} rows are needed.",
            classes="too-small",
        )

    def body(self) -> ComposeResult:
        """The step's own widgets."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        """For screens that draw for the width there is."""

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

    def refuse(self, problem: Problem, error: PackError, go: bool = True) -> None:
        """Show an error in the words of this screen, and `go` to the control that its way on speaks
        of."""
        flags = sorted(self.CONTROLS, key=len, reverse=True)
        if flags:
            named = re.compile(
                rf"(?<![\w-])(?:{'|'.join(map(re.escape, flags))})(?![\w-])(?: [A-Z]{{2,}})?"
            )
            text = f"{error.message} {error.hint}"
            option = next((match[0].partition(" ")[0] for match in named.finditer(text)), None)

            def spoken(match: re.Match[str]) -> str:
                return self.CONTROLS[match[0].partition(" ")[0]][1]

            problem.show(named.sub(spoken, error.message), named.sub(spoken, error.hint))
            if option is not None and go and self.CONTROLS[option][0]:
                control = next(iter(self.query(self.CONTROLS[option][0])), None)
                if control is not None and control.focusable:
                    self.set_focus(control)
        else:
            problem.show(error.message, error.hint)
        problem.reveal()

    @property
    def on_top(self) -> bool:
        """Whether a person looks at this screen; one below a transparent one counts as current for
        Textual."""
        return self.app.screen is self

    @property
    def busy(self) -> bool:
        """Whether work goes on here that leaving would end: then `q` asks first."""
        return False

    def ask_to_leave(self) -> None:
        """The person wants to quit while this screen is busy."""
        raise NotImplementedError

    def leaving(self) -> None:
        """The screen is about to go: what was filled in there can still be kept."""

    def home(self) -> None:
        """Where Esc leads from a text field."""
        self.focus_next()

    def action_back(self) -> None:
        """Leave a text field, else a part that has the whole window, else the step."""
        if self.maximized is not None:
            self.minimize()
        elif isinstance(self.focused, Input):
            self.home()
        elif len(self.app.screen_stack) > 2:
            self.leaving()
            self.app.pop_screen()

    @on(Steps.Wanted)
    def _step_wanted(self, message: Steps.Wanted) -> None:
        self.to_step(message.step)

    def to_step(self, step: int) -> None:
        """Back to an earlier step, as far as nothing that runs would be left behind."""
        while len(self.app.screen_stack) > 2:
            top = self.app.screen
            if not isinstance(top, StepScreen) or top.busy or step >= top.STEP:
                return
            top.leaving()
            self.app.pop_screen()

    def action_copy(self) -> None:
        """Copy the error where there is one, else what the screen is about."""
        shown = [problem.text for problem in self.query(Problem) if problem.text]
        if shown:
            self.pack.copy("\n".join(shown), "the error")
            return
        copied = self.copied()
        if copied is not None:
            self.pack.copy(*copied)

    def copied(self) -> tuple[str, str] | None:
        """A text and what to call it; None where there is nothing to copy."""
        return None
