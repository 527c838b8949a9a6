"""A question with two answers; the harmless one has the focus."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class ConfirmScreen(ModalScreen[bool]):
    """Answers True only when the person says so by the key or button of the deed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding(
            "n,escape,q",
            "answer(False)",
            "No",
            id="confirm.no",
            tooltip="Leave everything as it is",
        ),
        Binding("left,h", "app.focus_previous", "Left", show=False),
        Binding("right,l", "app.focus_next", "Right", show=False),
    ]

    def __init__(self, question: str, detail: str, deed: str, keep: str = "No") -> None:
        super().__init__()
        self._question, self._detail, self._deed, self._keep = question, detail, deed, keep

    def compose(self) -> ComposeResult:
        """The question, what follows from it, two buttons."""
        with Vertical(classes="dialog"):
            yield Static(self._question, id="question", markup=False)
            yield Static(self._detail, id="detail", markup=False)
            with Horizontal():
                yield Button(f"{self._keep} (n)", id="no", variant="primary", compact=True)
                yield Button(f"{self._deed} (y)", id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        """Enter does no harm."""
        self.query_one("#no").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)
