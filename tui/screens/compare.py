"""Two to four packages side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from packager.report.compare import Row, notes, rows, titles
from tui.screens.base import BACK, COPY, StepScreen
from tui.table import shortened
from tui.widgets.lists import VimTable
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from packager.package.package import Package


LEAST = 18
"""Cells of a package."""


def cut(label: str, text: str, cells: int) -> str:
    """A value in so many cells: recipes tell themselves apart at their end, names there and at
    their beginning."""
    if label == "recipe" and len(text) > cells:
        return f"…{text[1 - cells :]}"
    return shortened(text, cells)


class CompareScreen(StepScreen):
    """A column per package; the best figure of a row carries a star."""

    HEADING = "Compare"
    CSS_PATH = "compare.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "p",
            "plot",
            "Plot",
            id="compare.plot",
            tooltip="These as points: memory against speed against quality",
        ),
        BACK,
        COPY,
    ]

    def __init__(self, packages: Sequence[Package]) -> None:
        super().__init__()
        self._packages = tuple(packages)
        contents = [package.contents for package in packages]
        self._titles = titles(
            [package.manifest.name for package in packages],
            [str(package.path) for package in packages],
        )
        self._rows: list[Row] = rows(contents)
        self._notes = notes(self._titles, contents)

    def body(self) -> ComposeResult:
        """The table and its legend."""
        with Vertical(id="compare"):
            yield VimTable(id="compare-table", cursor_type="row")
            with Pane(id="compare-notes"):
                yield Static(
                    "\n".join(
                        [
                            "★ best of the row, where all were measured undisturbed on the same "
                            "machine, for the same context",
                            *self._notes,
                        ]
                    ),
                    markup=False,
                )

    def on_mount(self) -> None:
        """The manifests are read already."""
        table = self.query_one(VimTable)
        table.border_title = "Side by side"
        self.query_one("#compare-notes").border_title = "What to know"
        table.add_column("", width=14)
        width = max(LEAST, min(40, (self.app.size.width - 22) // len(self._packages) - 2))
        for title in self._titles:
            table.add_column(Text(shortened(title, width)), width=width)
        for row in self._rows:
            cells = [
                Text(
                    cut(row.label, f"{text} ★" if index == row.best else text, width),
                    style="bold" if index == row.best else "",
                )
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
        lines = ["\t".join(["", *self._titles])]
        lines += ["\t".join([row.label, *row.texts]) for row in self._rows]
        return "\n".join([*lines, *self._notes]), "the comparison, tab-separated"
