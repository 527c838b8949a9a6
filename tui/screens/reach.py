"""On which machine? An address for `bench --on`, and the program that runs the model there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from packager.errors import PackError
from tui.widgets.paths import PathSuggester
from tui.widgets.problem import Problem
from tui.widgets.text_line import TextLine

_WHAT = (
    "The files that are missing there are sent, the whole benchmark runs there, and the figures "
    "come back. Neither Python nor qwen-pack is needed there."
)


@dataclass(frozen=True, slots=True)
class Place:
    """A machine, an address or a name of the lab as `--on` takes it, and the agent, as `--agent`
    does; None takes what fits."""

    address: str
    agent: str | None = None


class ReachScreen(ModalScreen[Place | None]):
    """Answers with the place; an address that is none is refused here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="reach.close", tooltip="Measure nothing"),
    ]

    def __init__(self, name: str, last: Place | None = None) -> None:
        """`name` of the package; `last` is where a measurement was asked for before."""
        super().__init__()
        self._package, self._last = name, last

    def compose(self) -> ComposeResult:
        """Two lines, what they are for, two buttons."""
        last = self._last or Place("")
        with Vertical(classes="dialog"):
            yield Static(f"Measure {self._package} on another machine", id="question", markup=False)
            yield Static(_WHAT, id="reach-what", markup=False)
            yield TextLine(
                "Machine",
                "reach-address",
                last.address,
                example="a name of the lab, ssh://pi@raspberrypi, adb:SERIAL",
            )
            yield TextLine(
                "Agent",
                "reach-agent",
                last.agent or "",
                example="what fits; else a name or a file",
                suggester=PathSuggester(),
            )
            yield Problem(id="reach-problem")
            with Horizontal():
                yield Button("Close (Esc)", id="close", compact=True)
                yield Button("Measure (Enter)", id="measure", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Into the address."""
        self.query_one("#reach-address", Input).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._answer()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "measure":
            self._answer()
        else:
            self.dismiss(None)

    def _answer(self) -> None:
        from packager.lab.machines import address_of
        from packager.lab.transport import parse

        address = self.query_one("#reach-address", Input).value.strip()
        try:
            parse(address_of(address))
        except PackError as error:
            self.query_one(Problem).show(error.message, error.hint, keys="")
            self.query_one("#reach-address", Input).focus()
            return
        self.dismiss(Place(address, self.query_one("#reach-agent", Input).value.strip() or None))

    def action_close(self) -> None:
        """Nothing is measured."""
        self.dismiss(None)
