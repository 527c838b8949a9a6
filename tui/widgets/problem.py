"""An error in place, with the way on."""

from __future__ import annotations

from textual.containers import ScrollableContainer
from textual.content import Content
from textual.widgets import Static


class Problem(Static):
    """An error in place: the sentence, the way on, and how to copy it. Hidden while there is
    none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="problem")
        self.text = ""

    def show(self, message: str, hint: str = "", keys: str = "ctrl+y copies this") -> None:
        """Show an error. The key that copies it also works in a text field, where a y is a
        letter."""
        self.text = f"{message} {hint}".strip()
        self.update(
            Content.assemble(
                ("✗ ", "bold $text-error"),
                message,
                ("\n" + hint if hint else "", "$foreground-muted"),
                (f"\n{keys}" if keys else "", "$foreground-muted italic"),
            )
        )
        self.add_class("-shown")

    def reveal(self) -> None:
        """Scroll to what is shown as soon as it is laid out: as little from the top as shows all of
        it, wherever an earlier layout had scrolled to."""
        if self.text:
            self.call_after_refresh(self._reveal)

    def _reveal(self) -> None:
        for pane in self.ancestors:
            if isinstance(pane, ScrollableContainer):
                pane.scroll_home(animate=False, immediate=True)
        self.scroll_visible(animate=False, immediate=True)

    def clear(self) -> None:
        """Show none."""
        self.text = ""
        self.remove_class("-shown")
