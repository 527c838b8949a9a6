"""Only the cells that changed go to the terminal: over a slow line a full repaint takes seconds.

Textual repaints whole regions whenever a layout changes. Here the last content of every cell is
remembered, and of an update only what differs is written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

if TYPE_CHECKING:
    from rich.console import Console

Cell = tuple[str, str]
"""A character and the codes of its style; the right half of a wide character has an empty one."""
_GAP = 8
"""Unchanged cells between two changes that are written again: moving the cursor there costs as many
bytes."""
_UNKNOWN: Cell = ("\0", "")
_PRIVATE = "Co"
"""Symbols of fonts for programmers: printable there."""
_UNSHOWN = "\N{REPLACEMENT CHARACTER}"


class ChangedCells:
    """What the terminal shows, cell by cell."""

    def __init__(self) -> None:
        self._lines: dict[int, list[Cell]] = {}

    def forget(self) -> None:
        """The terminal may show anything: the next update is written whole."""
        self._lines.clear()

    def of(self, update: LayoutUpdate | ChopsUpdate) -> CompositorUpdate:
        """The same update, which writes only the cells that differ from what the terminal shows."""
        return _Changes(self, update)

    def take(self, update: LayoutUpdate | ChopsUpdate, console: Console) -> str:
        """Remember the update; return the control sequences that bring the terminal there."""
        return "".join(self._line(x, y, cells) for x, y, cells in _runs(update, console) if cells)

    def _line(self, x: int, y: int, cells: list[Cell]) -> str:
        shown = self._lines.setdefault(y, [])
        if len(shown) < x + len(cells):
            shown.extend([_UNKNOWN] * (x + len(cells) - len(shown)))
        before = shown[x : x + len(cells)]
        if before == cells:
            return ""
        shown[x : x + len(cells)] = cells
        return "".join(_written(x, y, cells, start, end) for start, end in _spans(before, cells))


class _Changes(CompositorUpdate):
    """An update that is compared with the terminal in the moment in which it is written."""

    def __init__(self, terminal: ChangedCells, update: LayoutUpdate | ChopsUpdate) -> None:
        self._terminal, self._update = terminal, update

    def render_segments(self, console: Console) -> str:
        """Raw data with escape sequences."""
        return self._terminal.take(self._update, console)


def _runs(
    update: LayoutUpdate | ChopsUpdate, console: Console
) -> Iterator[tuple[int, int, list[Cell]]]:
    """Column, line and cells of every run that the update draws."""
    x = y = 0
    cells: list[Cell] = []
    for segment in cast("Iterator[Segment]", update.__rich_console__(console, console.options)):
        if segment.control:
            yield x, y, cells
            codes = cast("tuple[tuple[object, int, int], ...]", segment.control)
            _, x, y = codes[0]
            cells = []
        elif segment.text != "\n":
            cells += _cells(segment, console)
    yield x, y, cells


def _cells(segment: Segment, console: Console) -> list[Cell]:
    codes = _codes(segment.style, console)
    text = segment.text
    if text.isprintable() and cell_len(text) == len(text):
        return [(character, codes) for character in text]
    cells: list[Cell] = []
    for character in text:
        width = cell_len(character)
        shown = _without_effect(character, width)
        if not width and cells:
            # A combining mark belongs to the character before it.
            cells[-1] = (cells[-1][0] + shown, codes)
        elif width:
            cells += [(shown, codes), *([("", codes)] * (width - 1))]
    return cells


def _without_effect(character: str, width: int) -> str:
    """A character as the terminal may have it: names from outside hold control characters, marks
    that turn the direction, and bytes that are not text."""
    if character.isprintable() or unicodedata.category(character) == _PRIVATE:
        return character
    return _UNSHOWN if width else ""


def _codes(style: Style | None, console: Console) -> str:
    system = console._color_system
    if style is None or system is None:
        return ""
    return style._make_ansi_codes(system)


def _spans(before: list[Cell], now: list[Cell]) -> Iterator[tuple[int, int]]:
    """First and last-but-one place of every stretch that changed, short gaps between them
    filled."""
    start = end = -1
    for place, (old, new) in enumerate(zip(before, now, strict=True)):
        if old == new:
            continue
        if start >= 0 and place - end > _GAP:
            yield start, end
            start = -1
        start, end = (place if start < 0 else start), place + 1
    if start >= 0:
        yield start, end


def _written(x: int, y: int, cells: list[Cell], start: int, end: int) -> str:
    """A stretch of a line, moved to; it begins with a whole character."""
    while start > 0 and not cells[start][0]:
        start -= 1
    parts = [Control.move_to(x + start, y).segment.text]
    last = ""
    for character, codes in cells[start:end]:
        if codes != last:
            parts.append(f"\x1b[0;{codes}m" if codes else "\x1b[0m")
            last = codes
        parts.append(character)
    return "".join([*parts, "\x1b[0m" if last else ""])
