"""Memory against speed against quality: the front carries letters, everything else is a dot, limits
are lines."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from packager.units import human_bytes
from tui.points import PAIRS, Scatter, of_candidates, of_packages
from tui.screens.base import BACK, COPY, StepScreen
from tui.table import rate
from tui.widgets.scatter import ScatterPlot, best_pair


class ParetoScreen(StepScreen):
    """The plot and the names of the letters."""

    HEADING = "Pareto front"
    CSS_PATH = "pareto.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "a,right,l",
            "axes(1)",
            "Other axes",
            id="pareto.axes",
            tooltip="Memory and speed, memory and quality, speed and quality",
        ),
        Binding(
            "left,h",
            "axes(-1)",
            "Axes before",
            id="pareto.axes-back",
            tooltip="The pair of axes before",
            show=False,
        ),
        BACK,
        COPY,
    ]

    def __init__(self, scatter: Scatter) -> None:
        super().__init__()
        self._scatter = scatter
        self._pair = best_pair(scatter)

    def body(self) -> ComposeResult:
        """Plot on the left, legend on the right."""
        with Horizontal(id="pareto"):
            yield ScatterPlot(self._scatter, id="pareto-plot")
            with VerticalScroll(id="pareto-legend"):
                yield Static(id="pareto-text")

    def on_mount(self) -> None:
        """Say what is what."""
        self.query_one("#pareto-legend").border_title = "On the front"
        self.set_focus(self.query_one("#pareto-legend"))
        self._legend()

    def _legend(self) -> None:
        pair = PAIRS[self._pair]
        parts: list[tuple[str, str]] = []
        front = self._scatter.front()
        for letter, point in front.items():
            score = "" if point.quality is None else f", score {point.quality:.1f}"
            parts += [
                (f"{letter} ", "bold $text-primary"),
                (f"{point.label}\n", "bold"),
                (
                    f"  {human_bytes(point.memory)}, {rate(point.speed)} tok/s{score}\n",
                    "$foreground-muted",
                ),
            ]
        rest = len(self._scatter.points) - len(front)
        if not front and self._scatter.points:
            parts.append(("Nothing fits, so nothing is on the front.\n", "$text-warning"))
        elif rest:
            parts.append((f"· {rest} more, dominated\n", ""))
        if self._scatter.coarse:
            parts.append(
                (
                    f"{self._scatter.coarse} of them under 4 bits per weight: they lose more than "
                    "a larger variant gains\n",
                    "$foreground-muted",
                )
            )
        if self._scatter.held:
            parts.append(
                (
                    f"{self._scatter.held} of them held back for this task: their notes say why\n",
                    "$foreground-muted",
                )
            )
        if any(point.bits for point in self._scatter.points):
            parts.append(
                (
                    "Scores are of the unquantized model; between equal scores more bits per "
                    "weight count as better.\n",
                    "$foreground-muted",
                )
            )
        unscored = len(self._scatter.points) - len(self._scatter.shown(pair))
        if unscored:
            parts.append(
                (
                    f"{unscored} without a published score are not on these axes\n",
                    "$foreground-muted",
                )
            )
        if self._scatter.memory_limit:
            parts.append(
                (f"memory limit {human_bytes(self._scatter.memory_limit)}\n", "$text-warning")
            )
        if self._scatter.speed_floor:
            parts.append((f"least speed {self._scatter.speed_floor:g} tok/s\n", "$text-warning"))
        self.query_one("#pareto-text", Static).update(Content.assemble(*parts))

    def action_axes(self, step: int) -> None:
        """Another pair of axes."""
        self._pair = (self._pair + step) % len(PAIRS)
        plot = self.query_one(ScatterPlot)
        plot.pair = PAIRS[self._pair]
        plot.draw()
        self._legend()

    def home(self) -> None:
        """The legend."""
        self.set_focus(self.query_one("#pareto-legend"))

    def copied(self) -> tuple[str, str] | None:
        """The front, tab-separated."""
        rows = [
            f"{point.label}\t{point.memory:.0f}\t{point.speed:.3g}\t{point.quality}"
            for point in self._scatter.front().values()
        ]
        return "\n".join(rows), "the front: name, bytes, tok/s, score"


__all__ = ["ParetoScreen", "ScatterPlot", "of_candidates", "of_packages"]
