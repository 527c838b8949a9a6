"""A line of a form that takes text: a label as wide as those of the sliders, and the field."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input, Label

from tui.widgets.slider import MARK


class TextLine(Horizontal):
    """Label and text field; the label is marked where the text is not the usual one. The field has
    the id `name`, the line `name`-line."""

    DEFAULT_CSS = """
    TextLine { height: 1; }
    TextLine Label { width: 13; }
    TextLine Input { width: 1fr; }
    TextLine:focus-within Label { text-style: bold; }
    """

    def __init__(
        self,
        label: str,
        name: str,
        value: str = "",
        *,
        example: str = "",
        suggester: Suggester | None = None,
        usual: str = "",
    ) -> None:
        """`example` stands in the field while it is empty."""
        super().__init__(id=f"{name}-line")
        self.label, self._usual = label, usual
        self.field = Input(value, placeholder=example, suggester=suggester, id=name, compact=True)

    def compose(self) -> ComposeResult:
        """Label and field."""
        yield Label(self._labelled)
        yield self.field

    @property
    def _labelled(self) -> str:
        return f"{self.label} {MARK}" if self.text != self._usual else self.label

    @property
    def text(self) -> str:
        """What stands in the field, without the spaces around it."""
        return self.field.value.strip()

    def show(self, value: str, usual: str = "") -> None:
        """Write a text into the field."""
        self._usual = usual
        self.field.value = value
        self._relabel()

    @on(Input.Changed)
    def _relabel(self) -> None:
        if self.is_mounted:
            self.query_one(Label).update(self._labelled)
