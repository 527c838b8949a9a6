"""Points on two axes: the front carries letters, everything else is a dot, limits are lines."""

from __future__ import annotations

from typing import Any

from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from tui.points import PAIRS, UNITS, Scatter
from tui.widgets.plots import axes, colours, draw

_FRAME = 6
"""Cells of a border that its title leaves free."""
_REST_S = 0.1
"""Seconds that a mark stays before it is drawn."""


def best_pair(scatter: Scatter) -> int:
    """The place in PAIRS of the axes to begin with: quality tells candidates apart best; where none
    has a score there is only speed."""
    return 1 if any(point.quality is not None for point in scatter.points) else 0


class ScatterPlot(Static):
    """The points on two axes."""

    def __init__(self, scatter: Scatter | None = None, *, id: str | None = None) -> None:
        """Without points it waits for those of `show`."""
        super().__init__(id=id)
        self.scatter = scatter
        self.pair = PAIRS[0 if scatter is None else best_pair(scatter)]
        self._marked = ""
        self._timer: Timer | None = None

    def show(self, scatter: Scatter) -> None:
        """Other points."""
        self.scatter, self.pair = scatter, PAIRS[best_pair(scatter)]
        self.draw()

    @property
    def waits(self) -> bool:
        """Whether a mark is about to be drawn."""
        return self._timer is not None

    def mark(self, label: str) -> None:
        """Point out the one of that name; a cursor that runs through a table is waited for."""
        self._marked = label
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self.content_size.width:
            self._timer = self.set_timer(_REST_S, self.draw)

    def on_mount(self) -> None:
        """Again in the colours of another theme."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self.draw())

    def on_resize(self) -> None:
        """For the new size."""
        self.draw()

    def _entitle(self, scatter: Scatter) -> None:
        """What the axes are, each at its own side."""
        x, y = self.pair
        self.border_subtitle = f"→ {UNITS[x]}"
        title = f"↑ {UNITS[y]} · {scatter.title}, {scatter.kind}"
        # Where there is no room for all of it, what the points are is said by what stands beside.
        room = self.content_size.width - _FRAME
        self.border_title = title if len(title) <= room else f"↑ {UNITS[y]}"

    def draw(self) -> None:
        """Dots first, then lines, letters on top."""
        self._timer = None
        scatter, (x, y) = self.scatter, self.pair
        if scatter is None or not self.content_size.width:
            return
        self._entitle(scatter)
        points = scatter.shown(self.pair)
        front = {letter: point for letter, point in scatter.front().items() if point in points}
        if not points:
            self.update(
                Content.styled(
                    f"\n No point has both: {UNITS[x]}, and {UNITS[y]}.", "$foreground-muted"
                )
            )
            return

        def paint(plot: Any) -> None:
            first, second, third = colours(self)
            plot.scatter(
                [point.at(x) for point in points], [point.at(y) for point in points], marker="·"
            )
            for axis, line in ((x, plot.vline), (y, plot.hline)):
                limit = {
                    "memory": scatter.memory_limit and scatter.memory_limit / 1e9,
                    "speed": scatter.speed_floor,
                    "quality": None,
                }[axis]
                values = [point.at(axis) or 0 for point in points]
                # A limit far beyond every point would press them into a corner; the legend still
                # states it.
                if limit and limit <= 1.5 * max(values):
                    line(limit, color=second)
            for letter, point in front.items():
                plot.scatter([point.at(x)], [point.at(y)], marker=letter, color=first)
            for point in points:
                if point.label == self._marked:
                    plot.scatter([point.at(x)], [point.at(y)], marker="◆", color=third)
            spread = {axis: _limits([point.at(axis) or 0 for point in points]) for axis in (x, y)}
            axes(plot, spread[x], spread[y], self.content_size)

        draw(self, paint)


def _limits(values: list[float]) -> tuple[float, float]:
    """A little more than the values take, so that no point lies on the frame."""
    low, high = min(values), max(values)
    spare = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return max(0.0, low - spare) if low >= 0 else low - spare, high + spare
