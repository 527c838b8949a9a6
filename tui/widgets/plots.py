"""Plots in characters. plotext is imported when the first one is drawn: it takes longer than a
first paint may."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from math import ceil, floor, log10
from typing import Any

from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Static

MARKERS = ("hd", "dot", "braille", "+", "x")
"""One for each answer of a benchmark, so that no two lines look the same."""


class TokenPlot(Static):
    """Milliseconds between tokens, one line per trial."""

    def __init__(self, trials: Sequence[Sequence[float]], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._trials = trials

    def on_mount(self) -> None:
        """Draw in the colours of the theme, and again when that changes."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()

    def _draw(self) -> None:
        def lines(plot: Any) -> None:
            # Marker and colour both tell the lines apart: a terminal may have no colours.
            styles = zip(
                self._trials,
                cycle(MARKERS),
                cycle(colours(self)),
                strict=False,
            )
            for number, (trial, marker, colour) in enumerate(styles, 1):
                name = f"answer {number}" if len(self._trials) > 1 else None
                plot.plot(
                    list(range(2, len(trial) + 2)),
                    list(trial),
                    marker=marker,
                    color=colour,
                    label=name,
                )
            top = max(max(trial) for trial in self._trials) * 1.15
            axes(
                plot,
                (1, max(len(trial) for trial in self._trials) + 1),
                (0, top),
                self.content_size,
            )

        draw(self, lines)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers from `low` to `high`: 1, 2, 2.5 or 5 times a power of ten apart;
    one where there is no room."""
    if not high > low:
        return [low]
    step = 10.0 ** floor(log10((high - low) / most))
    # Rising steps: the first of which few enough marks lie in the range.
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100):
        first, last = ceil(low / (step * factor) - 1e-9), floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            return [round(place * step * factor, 12) for place in range(first, last + 1)]
    return [low]


def axes(plot: Any, across: tuple[float, float], up: tuple[float, float], size: Size) -> None:
    """Limits of both axes and round numbers on them, as many as have room."""
    for limits, where, most, mark in (
        (across, plot.xlim, size.width // 10, plot.xticks),
        (up, plot.ylim, size.height // 3, plot.yticks),
    ):
        where(*limits)
        marks = ticks(*limits, max(2, most))
        mark(marks, [f"{value:,g}" for value in marks])


def colours(widget: Widget) -> list[Any]:
    """Three colours of the theme as plotext takes them; names where the terminal's own palette is
    used."""
    if widget.app.current_theme.ansi:
        return ["blue", "green", "magenta"]
    from textual.color import Color

    return [
        Color.parse(widget.app.theme_variables[name]).rgb
        for name in ("text-primary", "text-accent", "text-success")
    ]


def draw(widget: Static, paint: Any) -> None:
    """Call `paint(figure)` and show the figure in the widget, in its size and without colours of
    plotext's own canvas."""
    width, height = widget.content_size
    if width < 16 or height < 5:
        widget.update("")
        return
    from rich.text import Text
    from textual_plotext.plot import Plot

    plot = Plot()
    plot.plotsize(width, height)
    plot._set_size(
        width, height
    )  # plotsize alone is not obeyed: Textualize/textual-plotext issue 5
    plot.theme("clear")
    paint(plot)
    widget.update(Text.from_ansi(plot.build()))
