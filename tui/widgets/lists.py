"""Textual's lists with the keys of vim beside the arrows."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable, OptionList

_MOVES: list[BindingType] = [
    Binding("j", "cursor_down", "Down", id="list.down", tooltip="One row down", show=False),
    Binding("k", "cursor_up", "Up", id="list.up", tooltip="One row up", show=False),
    Binding(
        "ctrl+d", "page_down", "Page down", id="list.page-down", tooltip="One page down", show=False
    ),
    Binding("ctrl+u", "page_up", "Page up", id="list.page-up", tooltip="One page up", show=False),
]


class VimList(OptionList):
    """An OptionList that also moves by j, k, g, G, and says when it has another width."""

    class Resized(Message):
        """Another width: rows that were laid out for one are due again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_MOVES,
        Binding("g", "first", "First", id="list.first", tooltip="The first row", show=False),
        Binding("enter", "select", "Choose", id="list.choose", tooltip="Open"),
        Binding("G", "last", "Last", id="list.last", tooltip="The last row", show=False),
    ]
    _width = 0

    def on_resize(self, event: events.Resize) -> None:
        """Only the width counts."""
        if event.size.width != self._width:
            self._width = event.size.width
            self.post_message(self.Resized())

    async def _on_click(self, event: events.Click) -> None:
        """A click highlights, on the highlighted row it opens: as in the table of candidates."""
        option = event.style.meta.get("option")
        if option is None or option == self.highlighted:
            return
        if not self.get_option_at_index(option).disabled:
            self.highlighted = option
        # Textual's own answer to the same click would open the row.
        event.prevent_default()


class VimTable(DataTable[Any]):
    """A DataTable that also moves by j, k, g, G."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_MOVES,
        Binding("h", "cursor_left", "Left", id="list.left", tooltip="To the left", show=False),
        Binding("l", "cursor_right", "Right", id="list.right", tooltip="To the right", show=False),
        Binding("g", "scroll_top", "First", id="list.first", tooltip="The first row", show=False),
        Binding("G", "scroll_bottom", "Last", id="list.last", tooltip="The last row", show=False),
    ]
