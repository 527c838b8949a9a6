"""Every key of a screen, made from its bindings: what is bound is what is shown, also after a
rebinding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.bindings import described
from tui.settings import config_file

if TYPE_CHECKING:
    from textual.screen import Screen


class HelpScreen(ModalScreen[None]):
    """Keys, what they do, and the id that rebinds them."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape,q,question_mark,f1",
            "close",
            "Close",
            id="help.close",
            tooltip="Back to the screen",
        ),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        # Asked now: once this screen is on top, its own bindings are the active ones.
        self._rows = described(below)

    def compose(self) -> ComposeResult:
        """A table by owner, and how to rebind."""
        with Vertical(id="help-box"), VerticalScroll(id="help-scroll"):
            yield Static(self._keys())
            yield Static(_signs(), id="help-signs")
            yield Static(self._rebinding(), id="help-rebind")

    def on_mount(self) -> None:
        """The title stands in the border."""
        box = self.query_one("#help-box")
        box.border_title, box.border_subtitle = "Keys", "Esc closes"
        self.query_one("#help-scroll").focus()

    def _keys(self) -> Content:
        parts: list[tuple[str, str]] = []
        last = ""
        room = self.app.size.width - _AROUND
        for row in self._rows:
            if row.owner != last:
                parts += [("\n" if last else "", ""), (f"{row.owner}\n", "bold $primary")]
                last = row.owner
            keys = " ".join(self.app.get_key_display(Binding(key, "")) for key in row.keys)
            parts += [(f"  {keys:<13}", "bold $text-accent"), *_row(row.binding, room)]
        return Content.assemble(*parts)

    def _rebinding(self) -> Content:
        return Content.assemble(
            ("\nOther keys: ", "bold"),
            (f"write them into {shown(config_file())}, for example\n\n", ""),
            ('  theme = "nord"\n  [keys]\n  "build.cancel" = "f9"\n', "$text-accent"),
        )

    def action_scroll(self, lines: int) -> None:
        """So many lines down."""
        self.query_one("#help-scroll").scroll_relative(y=lines, animate=False)

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss()


_AROUND = 14
"""Cells beside the text: margins, borders, the scroll bar."""
_KEYS, _NAME = 15, 17
_WIDE = 86


def _row(binding: Binding, room: int) -> list[tuple[str, str]]:
    """What a key does and the id of it, in `room` cells; an id that has no place there stands on a
    line of its own, below what it belongs to."""
    wide = room >= _WIDE
    indent = _KEYS + (_NAME if wide else 2)
    text = f"{binding.tooltip}"
    name = f"{binding.description:<{_NAME}}" if wide else "  "
    beside = wide and indent + len(text) + 2 + len(binding.id or "") <= room
    gap = "  " if beside else f"\n{'':{indent}}"
    return [
        (name, ""),
        (text, "$foreground-muted" if wide else ""),
        (f"{gap}{binding.id}\n", "italic $foreground-muted"),
    ]


def _signs() -> Content:
    """What the signs mean that stand for a state."""
    return Content.assemble(
        ("\nSigns: ", "bold"),
        "★ chosen or best, ✓ fits or passed, ✗ rejected, failed or missed, ● running, ○ waiting or "
        "open, • changed by you, "
        "▸5 in five recipes. A score is the mean of the published scores that the use case "
        "compares, of the unquantized model.",
    )


def shown(path: Any) -> str:
    """A path with the home folder as `~`."""
    from pathlib import Path

    try:
        return f"~/{Path(path).relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
