"""A scrolled part of a screen that keys reach: Tab goes there, the arrows and the keys of vim
scroll it."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static


class Fitted(Static):
    """Text that is laid out for the cells it has; says when it has others, and the screen draws it
    again."""

    class Resized(Message):
        """Another width, by a resize of the window or by what stands beside it."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._width = -1

    def on_resize(self) -> None:
        """Only the width counts: the height follows from the text."""
        if self.content_size.width != self._width:
            self._width = self.content_size.width
            self.post_message(self.Resized())


class Pane(VerticalScroll):
    """A VerticalScroll that takes the focus."""

    can_focus = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", id="list.down", tooltip="One line down", show=False),
        Binding("k", "scroll_up", "Up", id="list.up", tooltip="One line up", show=False),
        Binding(
            "ctrl+d",
            "page_down",
            "Page down",
            id="list.page-down",
            tooltip="One page down",
            show=False,
        ),
        Binding(
            "ctrl+u", "page_up", "Page up", id="list.page-up", tooltip="One page up", show=False
        ),
        Binding("g", "scroll_home", "First", id="list.first", tooltip="To the top", show=False),
        Binding("G", "scroll_end", "Last", id="list.last", tooltip="To the end", show=False),
    ]
