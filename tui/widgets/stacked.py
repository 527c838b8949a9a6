"""A stacked bar with its legend: bytes by component, each with its own sign so that it reads
without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import Static

from packager.units import human_bytes
from tui.bars import split


@dataclass(frozen=True, slots=True)
class Part:
    """One piece: its name, bytes, the character that draws it and a style."""

    label: str
    bytes: int
    sign: str
    style: str


class Stacked(Static):
    """The parts as one bar over the whole width, and a legend below; `mark` draws a limit as a line
    across."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="stacked")
        self._parts: tuple[Part, ...] = ()
        self._mark: tuple[str, int] | None = None

    def show(self, parts: Sequence[Part], mark: tuple[str, int] | None = None) -> None:
        """Draw these; `mark` is a name and bytes from the left."""
        self._parts, self._mark = tuple(part for part in parts if part.bytes > 0), mark
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def _draw(self) -> None:
        width = self.content_size.width
        if not self._parts or width < 8:
            return
        cells = split([part.bytes for part in self._parts], width)
        pieces: list[tuple[str, str]] = [
            (part.sign * count, part.style) for part, count in zip(self._parts, cells, strict=True)
        ]
        pieces.append(("\n", ""))
        if self._mark is not None:
            name, at = self._mark
            total = sum(part.bytes for part in self._parts)
            column = min(width - 1, round(at * width / total))
            label = f"{name} {human_bytes(at)}"
            text = (
                f"{' ' * (column - len(label) - 1)}{label} ▲"
                if column > len(label)
                else f"{' ' * column}▲ {label}"
            )
            pieces += [(text, "$warning"), ("\n", "")]
        used = 0
        for part in self._parts:
            text = f"{part.sign} {part.label} {human_bytes(part.bytes)}"
            if used and used + len(text) + 3 > width:
                pieces.append(("\n", ""))
                used = 0
            pieces += [("   " if used else "", ""), (part.sign, part.style), (text[1:], "")]
            used += len(text) + 3
        self.update(Content.assemble(*pieces))
