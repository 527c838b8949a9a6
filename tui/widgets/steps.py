"""The line on top: where in the walkthrough one is."""

from __future__ import annotations

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

NAMES = ("Device", "Need", "Candidates", "Plan", "Build", "Result", "Export")


class Steps(Static):
    """`qwen-pack  ✓ Device › 2 Need › 3 Candidates …` with the present step marked by brackets, not
    by colour alone."""

    class Wanted(Message):
        """The name of an earlier step was clicked."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, current: int, title: str = "") -> None:
        """`current` counts from 1; 0 stands beside the walkthrough, with a title of its own."""
        super().__init__(classes="steps")
        self._current, self._title = current, title
        self._places: dict[int, tuple[int, int]] = {}

    def on_mount(self) -> None:
        """Draw for the width there is."""
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def on_click(self, event: events.Click) -> None:
        """Back to a step that was done, as Esc leads there one by one."""
        for number, (start, end) in self._places.items():
            if start <= event.x < end and number < self._current:
                self.post_message(self.Wanted(number))

    def _draw(self) -> None:
        self._places = {}
        parts: list[tuple[str, str]] = [(" qwen-pack ", "bold $text-primary"), (" ", "")]
        # With names the line takes 87 cells, without the spaces between them 75.
        narrow, arrow = self.size.width < 76, " › " if self.size.width >= 88 else "›"
        for number, name in enumerate(NAMES, 1):
            start = sum(cell_len(text) for text, _ in parts)
            if number == self._current:
                parts.append((f"[{number} {name}]", "bold $text-accent"))
            elif number < self._current:
                parts.append(("✓" if narrow else f"✓ {name}", "$text-success"))
            else:
                parts.append((f"{number}" if narrow else f"{number} {name}", "$foreground-muted"))
            self._places[number] = (start, sum(cell_len(text) for text, _ in parts))
            if number < len(NAMES):
                parts.append((" › " if narrow else arrow, "$foreground-muted"))
        if not self._current:
            parts = [*parts[:2], (self._title, "bold $text-accent")]
        self.update(Content.assemble(*parts))
