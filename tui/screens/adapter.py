"""Which adapter for this package? What `build --adapter` asks for: the adapter, and the weights of
the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from packager.escapes import command
from packager.files import expanded
from tui.widgets.paths import PathSuggester
from tui.widgets.problem import Problem
from tui.widgets.text_line import TextLine

if TYPE_CHECKING:
    from pathlib import Path

_WHAT = (
    "A LoRA adapter becomes a separate package of a few MB, added while this one computes. "
    "It is measured on this package, and belongs to its content alone."
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as `--adapter` takes it, and a folder with the weights of its base; None takes
    what the base's manifest names."""

    location: str
    weights: str | None = None

    def command(self, base: Path, out: Path) -> str:
        """The command line that builds the same."""
        words = ["qwen-pack", "build", "--adapter", self.location, "--base", str(base)]
        words += ["--weights", self.weights] if self.weights else []
        return command([*words, "--out", str(out)])


class AdapterScreen(ModalScreen["Adapter | None"]):
    """Answers with the adapter; what it is worth is checked where it is planned."""

    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        "--adapter": ("#adapter", "Adapter"),
        "--base": ("#question", "the package"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="adapter.close", tooltip="Build nothing"),
    ]

    def __init__(self, name: str, last: Adapter | None = None) -> None:
        """`name` of the package; `last` is what was asked for before."""
        super().__init__()
        self._package, self._last = name, last or Adapter("")

    def compose(self) -> ComposeResult:
        """Two lines, what they are for, two buttons."""
        with Vertical(classes="dialog"):
            yield Static(f"An adapter for {self._package}", id="question", markup=False)
            yield Static(_WHAT, id="adapter-what", markup=False)
            yield TextLine(
                "Adapter",
                "adapter",
                self._last.location,
                example="a LoRA folder, or OWNER/NAME",
                suggester=PathSuggester(folders=True),
            )
            yield TextLine(
                "Weights",
                "adapter-weights",
                self._last.weights or "",
                example="as its manifest says; else a folder",
                suggester=PathSuggester(folders=True),
            )
            yield Problem(id="adapter-problem")
            with Horizontal():
                yield Button("Close (Esc)", id="close", compact=True)
                yield Button("Build (Enter)", id="build", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Into the adapter."""
        self.query_one("#adapter", Input).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._answer()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "build":
            self._answer()
        else:
            self.dismiss(None)

    def _answer(self) -> None:
        problem = self.query_one(Problem)
        location, weights = (
            self.query_one(f"#{name}", Input).value.strip()
            for name in ("adapter", "adapter-weights")
        )
        if not location:
            problem.show("Enter an adapter.", "A folder, or a repository of the hub.", keys="")
            self.query_one("#adapter", Input).focus()
            return
        if weights and not expanded(weights).is_dir():
            problem.show(f"There is no folder {weights!r}.", "Check the path.", keys="")
            self.query_one("#adapter-weights", Input).focus()
            return
        path = expanded(location)
        self.dismiss(
            Adapter(
                str(path) if path.is_dir() else location,
                str(expanded(weights)) if weights else None,
            )
        )

    def action_close(self) -> None:
        """Nothing is built."""
        self.dismiss(None)
