"""What would fit with one change, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets.option_list import Option

from tui import explain
from tui.widgets.lists import VimList

if TYPE_CHECKING:
    from packager.select.misses import Miss


class MissList(VimList):
    """What would fit with one change, a row each; Enter makes the change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "select",
            "Make this change",
            id="candidates.change",
            tooltip="Ask again with the one change that makes it fit",
        ),
    ]

    def show(self, misses: Sequence[Miss]) -> None:
        """Show these; none hides the list."""
        self.display = bool(misses)
        self.clear_options()
        self.add_options([Option(Content.assemble(*explain.miss(miss))) for miss in misses])
        self.highlighted = 0 if misses else None
