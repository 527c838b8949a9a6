"""The line of keys at the bottom: as many as there is room for, Help and Quit always."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.events import Resize
from textual.geometry import Size
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_NARROW = 100
_ALWAYS = ("help", "leave")
"""Actions without which a person is lost."""


class KeyLine(Footer):
    """A footer that leaves out its last keys, not its most important ones, where the window is
    narrow."""

    room = reactive(0, recompose=True)
    _drawn: tuple[tuple[object, ...], ...] = ()

    def bindings_changed(self, screen: Screen[Any]) -> None:
        """Other keys are drawn; the same ones, of another part that has the focus now, are not: to
        make a line of widgets is the dearest thing that Tab does."""
        drawn = tuple(
            (binding.key, binding.action, binding.description, enabled, tooltip)
            for _, binding, enabled, tooltip in screen.active_bindings.values()
            if binding.show
        )
        if drawn == self._drawn:
            return
        if screen.app.app_focus and self.is_attached and screen is self.screen:
            self._drawn = drawn
        super().bindings_changed(screen)

    def compose(self) -> ComposeResult:
        """Textual's own keys, less those for which there is no room."""
        width = self.room or self.app.size.width
        compact = width < _NARROW
        self.set_reactive(Footer.compact, compact)
        self.set_class(compact, "-compact")
        self.set_reactive(Footer.show_command_palette, not compact)
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        left = width - sum(_cells(key, compact) for key in keys if _kept(key))
        shown = []
        for key in keys:
            if _kept(key):
                shown.append(key)
            elif left >= _cells(key, compact):
                left -= _cells(key, compact)
                shown.append(key)
            else:
                # What comes after the first that does not fit is less important still.
                left = 0
        yield from shown

    def on_resize(self, event: Resize) -> None:
        """Another width has room for other keys."""
        self._fit(event.size)

    def _fit(self, size: Size) -> None:
        self.room = size.width


def _kept(key: FooterKey) -> bool:
    return key.action.removeprefix("app.") in _ALWAYS or "-command-palette" in key.classes


def _cells(key: FooterKey, compact: bool) -> int:
    roomy = 4 if "-command-palette" in key.classes else 3
    spare = 2 if compact else roomy
    return len(key.key_display) + len(key.description) + spare
