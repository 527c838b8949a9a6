"""Jump mode: a letter over every part of the screen that can have the focus; the letter goes
there."""

from __future__ import annotations

from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

LETTERS = "asdfghjklqwertyuiopzxcvbnm"


class JumpScreen(ModalScreen[Widget | None]):
    """Answers the widget whose letter is pressed; every other key closes it."""

    CSS_PATH = "jump.tcss"

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        seen = [
            widget
            for widget in below.focus_chain
            if widget.region.area and below.region.overlaps(widget.region)
        ]
        self._targets = dict(zip(LETTERS, seen, strict=False))

    def compose(self) -> ComposeResult:
        """The letters where the parts begin."""
        for letter, widget in self._targets.items():
            label = Static(f" {letter} ", classes="jump-letter")
            label.absolute_offset = Offset(
                widget.region.x + (1 if widget.region.width > 4 else 0), widget.region.y
            )
            yield label
        yield Static(" press a letter to jump, Esc cancels ", id="jump-help")

    def on_key(self, event: events.Key) -> None:
        """The letter decides."""
        event.stop()
        self.dismiss(self._targets.get(event.character or ""))

    def on_click(self) -> None:
        """A click closes."""
        self.dismiss(None)
