"""A stacked bar with its legend: bytes by component, each with its own sign so that it reads
without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from packager.units import human_bytes
from tui.bars import split

_LEAST = 8
"""Cells below which no bar says anything."""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece: its name, bytes, the character that draws it and a style."""

    label: str
    bytes: int
    sign: str
    style: str


class Stacked(Widget):
    """The parts as one bar over the whole width, and a legend below.

    Bar and height are those of the width at hand whenever they are asked for: drawn once for a
    width, a bar that no longer fits would take a line more.
    """

    DEFAULT_CSS = """
    Stacked { height: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="stacked")
        self._parts: tuple[Part, ...] = ()

    def show(self, parts: Sequence[Part]) -> None:
        """Draw these."""
        self._parts = tuple(part for part in parts if part.bytes > 0)
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Lines of bar and legend in so many cells."""
        return self._drawn(width).plain.count("\n") + 1

    def render(self) -> RenderResult:
        """Bar and legend."""
        return self._drawn(self.content_size.width)

    def _drawn(self, width: int) -> Content:
        if not self._parts or width < _LEAST:
            return Content()
        cells = split([part.bytes for part in self._parts], width)
        pieces: list[tuple[str, str]] = [
            (part.sign * count, part.style) for part, count in zip(self._parts, cells, strict=True)
        ]
        pieces.append(("\n", ""))
        used = 0
        for part in self._parts:
            text = f"{part.sign} {part.label} {human_bytes(part.bytes)}"
            if used and used + len(text) + 3 > width:
                pieces.append(("\n", ""))
                used = 0
            pieces += [("   " if used else "", ""), (part.sign, part.style), (text[1:], "")]
            used += len(text) + 3
        return Content.assemble(*pieces)
