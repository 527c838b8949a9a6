"""Step 6: what came out. Predicted against measured, budgets, every token's time, files and
hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from tui import figures
from tui.screens.base import BACK
from tui.screens.package_base import EXPORT, VERIFY, PackageScreen
from tui.screens.reach import Place
from tui.table import shortened
from tui.widgets.lists import VimTable
from tui.widgets.pane import Fitted, Pane
from tui.widgets.plots import TokenPlot
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.package.package import Package


_OFF = 9
"""Cells of the last column, with the space before it: `+143 %`."""
_DIGITS = 16
"""Of a hash: enough to compare by eye; the whole of it is copied."""


class ResultScreen(PackageScreen):
    """One package with its evidence."""

    STEP = 6
    CSS_PATH = "result.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        EXPORT,
        VERIFY,
        Binding(
            "m",
            "bench",
            "Measure",
            id="package.bench",
            tooltip="The smoke benchmark again, compared with the manifest's figures",
        ),
        Binding(
            "o",
            "open",
            "Open folder",
            id="package.open",
            tooltip="Show the folder in the file manager",
        ),
        Binding(
            "y,ctrl+y",
            "copy",
            "Copy path",
            id="screen.copy",
            tooltip="Copy the path of the package",
        ),
        Binding(
            "H",
            "copy_hash",
            "Copy hash",
            id="result.hash",
            tooltip="Copy the sha256 of the highlighted file",
            show=False,
        ),
        BACK,
    ]

    def __init__(self, package: Package, on: str | None = None) -> None:
        """With `on`, a machine as `--on` takes it, the measurement there begins at once."""
        super().__init__()
        self._package, self._machine = package, on

    @property
    def package(self) -> Package:
        """The one that is shown."""
        return self._package

    def body(self) -> ComposeResult:
        """Figures and budgets, the plot, the files."""
        contents = self._package.contents
        trials = figures.token_times(contents)
        with Pane(id="result"):
            yield Static(id="result-title")
            with Grid(id="result-top"):
                with Vertical(id="result-figures"):
                    yield Fitted(id="result-rows")
                with Vertical(id="result-budgets"):
                    yield Static(id="result-verdicts")
            yield self.work_line()
            yield Problem(id="result-problem")
            with Horizontal(id="result-bottom"):
                if trials:
                    yield TokenPlot(trials, id="tokens")
                yield VimTable(id="files", cursor_type="row", zebra_stripes=False)

    def on_mount(self) -> None:
        """Everything stands in the manifest; nothing has to be waited for."""
        contents = self._package.contents
        self.query_one("#result-figures").border_title = "Predicted and measured"
        self.query_one("#result-budgets").border_title = "Budgets and evidence"
        self.query_one("#result-title", Static).update(
            Content.assemble(
                (f"{self._package.manifest.name}\n", "bold $text-accent"),
                (figures.heading(contents), "$foreground-muted"),
            )
        )
        self._rows()
        self._evidence()
        for plot in self.query(TokenPlot):
            plot.border_title = "Milliseconds per token"
        table = self.query_one("#files", VimTable)
        table.border_title = "Files"
        table.add_columns("file", "size", "sha256")
        for path, size, digest in figures.files(self._package.manifest):
            table.add_row(Text(path), Text(size, justify="right"), f"{digest[:_DIGITS]}…")
        # The eye begins at the top, also where the table lies below the edge.
        self.set_focus(table, scroll_visible=False)
        if self._machine is not None:
            self.measure_at(self._package, Place(self._machine))

    def _evidence(self) -> None:
        """Budgets, quality, behaviour, and where all of it comes from."""
        contents = self._package.contents
        parts: list[tuple[str, str]] = []
        for passed, text in figures.verdicts(contents):
            sign, word, style = figures.MARKS[passed]
            parts += [(f"{sign} {word:<8}", style), (f"{text}\n", "")]
        parts += [("quality   ", "$foreground-muted"), (f"{figures.quality(contents)}\n", "")]
        tried = figures.behaviour(contents)
        parts += [("behaviour ", "$foreground-muted"), (f"{tried}\n", "")] if tried else []
        for label, text in figures.made_of(contents):
            parts += [(f"{label:<10}", "$foreground-muted"), (f"{text}\n", "")]
        beyond = figures.beyond(contents)
        parts += [(f"{beyond}\n", "")] if beyond else []
        parts += [
            (f"{figures.provenance(contents)}\n", "$foreground-muted"),
            (str(self._package.path), ""),
        ]
        self.query_one("#result-verdicts", Static).update(Content.assemble(*parts))

    def figures_kept(self, package: Package) -> None:
        """Show what the manifest says now."""
        from packager.package import manifest
        from packager.package.package import Package as Read

        self._package = Read(package.path, manifest.read(package.path))
        self._rows()
        self._evidence()

    @on(Fitted.Resized)
    def _rows(self) -> None:
        contents = self._package.contents
        rows = figures.figures(contents)
        head, warning = figures.column(contents)
        room = self.query_one("#result-rows").content_size.width
        label = max(24, *(len(row.label) + 1 for row in rows)) if rows else 24
        # Numbers first: a row that breaks in two cannot be read down its columns.
        before = 13 if room >= label + 13 + 16 + _OFF else 11
        width = max(11, min(24, room - label - before - _OFF))
        head = shortened(head, width - 2)
        parts: list[tuple[str, str]] = [
            (f"{'':<{label}}{'predicted':>{before}}{head:>{width}}  error\n", "bold")
        ]
        for row in rows:
            parts += [
                (f"{row.label:<{label}}", "$foreground-muted"),
                (f"{row.predicted or '–':>{before}}", ""),
                (f"{row.measured or '–':>{width}}", "bold"),
                (f"  {row.off}\n", "$foreground-muted"),
            ]
        parts.append(
            (f"! {warning}", "$text-warning")
            if warning
            else ("error: how far the prediction is above", "$foreground-muted")
        )
        self.query_one("#result-rows", Static).update(Content.assemble(*parts))

    def action_copy_hash(self) -> None:
        """The sha256 of the highlighted file."""
        table = self.query_one("#files", VimTable)
        if table.row_count:
            path, _, digest = figures.files(self._package.manifest)[table.cursor_row]
            self.pack.copy(digest, f"the sha256 of {path}")

    def copied(self) -> tuple[str, str] | None:
        """The path."""
        return str(self._package.path), "the path of the package"
