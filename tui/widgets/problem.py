"""An error in place, with the way on."""

from __future__ import annotations

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

    def clear(self) -> None:
        """Show none."""
        self.text = ""
        self.remove_class("-shown")
