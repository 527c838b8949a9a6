"""Plots in characters. plotext is imported when the first one is drawn: it takes longer than a
first paint may."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from textual.widget import Widget
from textual.widgets import Static


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
                self._trials, cycle(("hd", "dot", "braille")), cycle(colours(self)), strict=False
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
            plot.ylim(0, max(max(trial) for trial in self._trials) * 1.15)
            plot.xlabel("token")

        draw(self, lines)


def colours(widget: Widget) -> list[Any]:
    """Three colours of the theme as plotext takes them; names where the terminal's own palette is
    used."""
    if widget.app.current_theme.ansi:
        return ["blue", "green", "magenta"]
    from textual.color import Color

    return [
        Color.parse(widget.app.theme_variables[name]).rgb
        for name in ("primary", "accent", "success")
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
