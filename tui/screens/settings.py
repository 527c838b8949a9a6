"""Settings: the theme, and the keys of the screen below; what is chosen holds at once and is
kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.bindings import all_keys, described
from tui.screens.help import shown
from tui.settings import config_file, split_keys
from tui.widgets.lists import VimList

if TYPE_CHECKING:
    from textual.screen import Screen

    from tui.app import PackApp

_THEME = "theme"
_HOW = "Enter changes a line, Backspace gives a key back, Esc closes."


class KeyList(VimList):
    """The lines; while a key is asked for, the next one that is pressed is the answer."""

    class Pressed(Message):
        """The key that was asked for, None where Esc was pressed."""

        def __init__(self, key: str | None) -> None:
            super().__init__()
            self.key = key

    asking = False

    def on_key(self, event: events.Key) -> None:
        """Take the key for an answer."""
        if not self.asking:
            return
        event.stop()
        event.prevent_default()
        self.post_message(self.Pressed(None if event.key == "escape" else event.key))


class SettingsScreen(ModalScreen[None]):
    """A line for the theme and one for every action that has a key on the screen below."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f4", "close", "Close", id="settings.close", tooltip="Back to the screen"),
        Binding(
            "backspace",
            "reset",
            "Own key",
            id="settings.reset",
            tooltip="Give the action its own key again",
        ),
    ]

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        # Asked now: once this screen is on top, its own bindings are the active ones.
        self._rows = {str(row.binding.id): row.binding for row in described(below)}

    @property
    def pack(self) -> PackApp:
        """The application, with its type."""
        from tui.app import PackApp

        assert isinstance(self.app, PackApp)
        return self.app

    def compose(self) -> ComposeResult:
        """The lines, and what to press."""
        with Vertical(id="help-box"):
            yield KeyList(id="settings")
            yield Static(_HOW, id="settings-how", markup=False)

    def on_mount(self) -> None:
        """The titles stand in the border."""
        box = self.query_one("#help-box")
        box.border_title, box.border_subtitle = "Settings", shown(config_file())
        self._fill()
        self.query_one(KeyList).focus()
        self.watch(self.app, "theme", self._fill, init=False)

    def _fill(self) -> None:
        """The lines as things stand; the cursor stays."""
        lines = self.query_one(KeyList)
        at = lines.highlighted or 0
        lines.clear_options()
        lines.add_option(
            Option(Content.assemble(("theme".ljust(24), "bold"), self.app.theme), id=_THEME)
        )
        own, defaults = self.pack.settings.keys, all_keys()
        for name, binding in self._rows.items():
            keys = own.get(name, defaults.get(name, binding.key))
            key = " ".join(self.app.get_key_display(Binding(one, "")) for one in split_keys(keys))
            mark = "•" if name in own else " "
            lines.add_option(
                Option(
                    # No colours of its own: they would not be seen on the row of the cursor.
                    Content.assemble(
                        (name.ljust(22), "bold"),
                        f"{mark} {key:<16} {binding.description}",
                    ),
                    id=name,
                )
            )
        lines.highlighted = min(at, lines.option_count - 1)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option.id == _THEME:
            self.app.action_change_theme()
            return
        self.query_one(KeyList).asking = True
        self._say(f"Press the key for {event.option.id}; Esc leaves it as it is.")

    @on(KeyList.Pressed)
    def _pressed(self, message: KeyList.Pressed) -> None:
        lines = self.query_one(KeyList)
        lines.asking = False
        self._give(message.key) if message.key is not None else self._say(_HOW)

    def action_reset(self) -> None:
        """The default of the highlighted line."""
        self._give(None)

    def _give(self, key: str | None) -> None:
        option = self.query_one(KeyList).highlighted_option
        if option is None or option.id is None or option.id == _THEME:
            return
        why_not = self.pack.rebind(option.id, key)
        if not why_not:
            self._fill()
        self._say(f"✗ {why_not}" if why_not else _HOW)

    def _say(self, text: str) -> None:
        self.query_one("#settings-how", Static).update(text)

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss()
