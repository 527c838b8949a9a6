"""Two to four packages side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from tui.compare import Row, rows
from tui.screens.base import BACK, COPY, StepScreen
from tui.widgets.lists import VimTable

if TYPE_CHECKING:
    from packager.package import Package


class CompareScreen(StepScreen):
    """A column per package; the best figure of a row carries a star."""

    HEADING = "Compare"
    CSS_PATH = "compare.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "plot", "Plot", id="compare.plot", tooltip="These as points: memory against speed against quality"),
        BACK,
        COPY,
    ]

    def __init__(self, packages: Sequence[Package]) -> None:
        super().__init__()
        self._packages = tuple(packages)
        self._rows: list[Row] = rows([package.manifest.data for package in packages])

    def body(self) -> ComposeResult:
        """The table and its legend."""
        with Vertical(id="compare"):
            yield VimTable(id="compare-table", cursor_type="row")
            yield Static("★ best of the row, where all were measured on the same machine", id="compare-legend")

    def on_mount(self) -> None:
        """The manifests are read already."""
        table = self.query_one(VimTable)
        table.border_title = "Side by side"
        table.add_column("", width=14)
        width = max(18, min(40, (self.app.size.width - 22) // len(self._packages) - 2))
        for package in self._packages:
            table.add_column(Text(package.manifest.name, overflow="ellipsis"), width=width)
        for row in self._rows:
            cells = [
                Text(f"{text} ★" if index == row.best else text, style="bold" if index == row.best else "")
                for index, text in enumerate(row.texts)
            ]
            table.add_row(Text(row.label), *cells)
        self.set_focus(table)

    def action_plot(self) -> None:
        """The same packages as points."""
        from tui.screens.pareto import ParetoScreen, of_packages

        self.app.push_screen(ParetoScreen(of_packages(self._packages)))

    def copied(self) -> tuple[str, str] | None:
        """The table, tab-separated."""
        lines = ["\t".join(["", *(package.manifest.name for package in self._packages)])]
        lines += ["\t".join([row.label, *row.texts]) for row in self._rows]
        return "\n".join(lines), "the comparison, tab-separated"
