"""The shelf: packages built so far. Compare, plot, measure again, verify, open, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Static

from packager.errors import PackError, from_foreign
from packager.records import Measurement
from packager.report.budgets import quantity
from packager.report.compare import titles
from tui import figures
from tui.screens.base import BACK, COPY
from tui.screens.package_base import EXPORT, VERIFY, PackageScreen
from tui.table import shortened
from tui.widgets.lists import VimTable
from tui.widgets.pane import Pane
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.package.package import Package

MOST = 4


_BESIDE, _DETAIL = 190, 64
"""Cells from which on the highlighted one stands beside the table, and what it takes there."""


class ShelfTable(VimTable):
    """The rows, with Enter in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "select_cursor",
            "Show",
            id="shelf.show",
            tooltip="Figures, budgets and files of the package",
        ),
    ]


class Found(Message):
    """The packages that are there."""

    def __init__(self, packages: tuple[Package, ...]) -> None:
        super().__init__()
        self.packages = packages


class ShelfScreen(PackageScreen):
    """A row per package; space marks those that are compared."""

    HEADING = "Shelf"
    CSS_PATH = "shelf.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space", "mark", "Mark", id="shelf.mark", tooltip="Mark for comparing, two to four"
        ),
        Binding(
            "c", "compare", "Compare", id="shelf.compare", tooltip="The marked ones side by side"
        ),
        Binding(
            "p",
            "plot",
            "Plot",
            id="shelf.plot",
            tooltip="Memory against speed against quality",
            show=False,
        ),
        VERIFY,
        Binding(
            "m",
            "bench",
            "Measure again",
            id="package.bench",
            tooltip="The smoke benchmark again, compared with the manifest's",
            show=False,
        ),
        EXPORT,
        Binding(
            "o",
            "open",
            "Open",
            id="package.open",
            tooltip="Show the folder in the file manager",
            show=False,
        ),
        Binding(
            "d",
            "delete",
            "Delete",
            id="shelf.delete",
            tooltip="Remove the package from the disk; asks first",
        ),
        Binding("r", "reload", "Reload", id="shelf.reload", tooltip="Look again", show=False),
        BACK,
        COPY,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._packages: tuple[Package, ...] = ()
        self._marked: list[Path] = []
        self._wide = True
        self._drawn_for = self._name_cells = 0

    @property
    def package(self) -> Package | None:
        """The one under the cursor."""
        table = self.query_one(VimTable)
        return (
            self._packages[table.cursor_row]
            if 0 <= table.cursor_row < len(self._packages)
            else None
        )

    def body(self) -> ComposeResult:
        """Table and evidence, or what to do while there is nothing."""
        with Vertical(id="shelf"):
            with Container(id="shelf-parts"):
                yield ShelfTable(id="packages", cursor_type="row")
                with Pane(id="shelf-detail"):
                    yield Static(id="shelf-text")
            yield self.work_line()
            yield Problem(id="shelf-problem")
        with Container(id="shelf-empty", classes="empty"):
            yield Static(
                Content.assemble(
                    ("Nothing on the shelf yet\n\n", "bold"),
                    f"There is no package in {self.services.folder.absolute()}, and none was built "
                    "elsewhere.\n\n",
                    ("Esc", "bold $text-accent"),
                    " leads to the walkthrough: build one there.",
                )
            )

    def on_mount(self) -> None:
        """Show the frame, then look for packages."""
        table = self.query_one(VimTable)
        table.border_title = "Packages"
        self.query_one("#shelf-detail").border_title = "The highlighted one"
        self.query_one("#shelf-empty").display = False
        self.set_focus(table)
        self._columns(self.app.size.width)
        self.action_reload()

    def _columns(self, width: int) -> None:
        """The columns for a window of that width."""
        self._drawn_for = width
        self.query_one("#shelf-parts").set_class(width >= _BESIDE, "-beside")
        if width >= _BESIDE:
            # The highlighted one stands beside the table, not below it.
            width -= _DETAIL
        table = self.query_one(VimTable)
        table.clear(columns=True)
        self._wide = width >= 110
        self._name_cells = width - 85 if self._wide else max(16, width - 57)
        table.add_column("", width=1)
        table.add_column("package", width=self._name_cells)
        for title, cells in (
            ("target", 13),
            ("files", 7),
            ("memory", 7),
            ("decode", 12),
            ("first token", 11),
        ):
            if self._wide or title not in ("target", "first token"):
                table.add_column(
                    Text(title, justify="left" if title == "target" else "right"), width=cells
                )
        table.add_column("budgets", width=10)

    def on_resize(self, event: Resize) -> None:
        """Another width holds other columns."""
        super().on_resize(event)
        if event.size.width != self._drawn_for:
            self._columns(event.size.width)
            self._fill()
            self._describe()

    def action_reload(self) -> None:
        """Look again."""
        self.query_one(VimTable).loading = True
        self._load()

    def figures_kept(self, package: Package) -> None:
        """Look again."""
        self.action_reload()

    @work(thread=True, exclusive=True, group="shelf")
    def _load(self) -> None:
        try:
            self.post_message(Found(self.services.packages(self.services.folder)))
        except (PackError, OSError) as error:
            self._report(error)

    @on(Found)
    def _found(self, message: Found) -> None:
        self._packages = message.packages
        here = {package.path for package in self._packages}
        self._marked = [path for path in self._marked if path in here]
        table = self.query_one(VimTable)
        table.loading = False
        empty = not self._packages
        self.query_one("#shelf").display = not empty
        self.query_one("#shelf-empty").display = empty
        self._fill()
        if not empty:
            self.set_focus(table)
        self._describe()
        self.refresh_bindings()

    def _fill(self) -> None:
        """The rows; the cursor stays where it was."""
        table = self.query_one(VimTable)
        row = table.cursor_row
        table.clear()
        names = titles(
            [one.manifest.name for one in self._packages], [str(one.path) for one in self._packages]
        )
        for package, name in zip(self._packages, names, strict=True):
            table.add_row(*self._cells(package, name))
        if self._packages:
            table.move_cursor(row=min(max(0, row), len(self._packages) - 1))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """An empty shelf offers nothing to do with a package."""
        if not self._packages and action in (
            "mark",
            "compare",
            "plot",
            "verify",
            "bench",
            "bench_on",
            "export",
            "adapter",
            "open",
            "delete",
        ):
            return False
        return super().check_action(action, parameters)

    def _cells(self, package: Package, name: str) -> list[Text]:
        contents, measured = package.contents, package.contents.telling or Measurement()

        def cell(value: float | None, unit: str) -> Text:
            return Text("–" if value is None else quantity(value, unit), justify="right")

        return [
            Text("■" if package.path in self._marked else ""),
            Text(shortened(name, self._name_cells)),
            *([Text(str(contents.target or "–"))] if self._wide else []),
            cell(contents.artifact_bytes, "B"),
            cell(measured.peak_memory_bytes, "B"),
            cell(measured.decode_tps, "tok/s"),
            *([cell(measured.ttft_ms, "ms")] if self._wide else []),
            Text(figures.budgets(contents)),
        ]

    @on(DataTable.RowHighlighted)
    def _describe(self) -> None:
        package = self.package
        self.query_one(Problem).clear()
        if package is None:
            return
        contents = package.contents
        parts: list[tuple[str, str]] = [
            (f"{package.manifest.name}\n", "bold $text-accent"),
            (f"{figures.heading(contents)}\n", "$foreground-muted"),
        ]
        warning = figures.column(contents)[1]
        parts += [(f"! {warning}\n", "$text-warning")] if warning else []
        for passed, text in figures.verdicts(contents):
            sign, _, style = figures.MARKS[passed]
            parts += [(f"{sign} ", style), (f"{text}\n", "")]
        parts += [
            (f"{figures.provenance(contents)}\n", "$foreground-muted"),
            (str(package.path), ""),
        ]
        if self._drawn_for >= _BESIDE:
            parts += figures.in_full(contents, package.manifest)
        self.query_one("#shelf-text", Static).update(Content.assemble(*parts))

    @on(DataTable.RowSelected)
    def action_show(self) -> None:
        """The whole evidence."""
        from tui.screens.result import ResultScreen

        if self.package is not None:
            self.app.push_screen(ResultScreen(self.package))

    def action_mark(self) -> None:
        """Mark or unmark the row; at most four."""
        package = self.package
        if package is None:
            return
        if package.path in self._marked:
            self._marked.remove(package.path)
        elif len(self._marked) >= MOST:
            self.notify(f"At most {MOST} can be compared.", severity="warning")
            return
        else:
            self._marked.append(package.path)
        table = self.query_one(VimTable)
        table.update_cell_at(
            table.cursor_coordinate._replace(column=0),
            Text("■" if package.path in self._marked else ""),
        )
        table.action_cursor_down()

    def action_compare(self) -> None:
        """Two to four side by side."""
        from tui.screens.compare import CompareScreen

        chosen = [package for package in self._packages if package.path in self._marked]
        if len(chosen) < 2:
            self.notify("Mark two to four with the space bar first.", severity="warning")
            return
        self.app.push_screen(CompareScreen(chosen))

    def action_plot(self) -> None:
        """All that were measured, as points."""
        from tui.screens.pareto import ParetoScreen, of_packages

        self.app.push_screen(ParetoScreen(of_packages(self._packages)))

    def action_delete(self) -> None:
        """Ask, then remove the package whole."""
        from tui.screens.confirm import ConfirmScreen

        package = self.package
        if package is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._delete(package)

        size = quantity(sum(entry.size for entry in package.manifest.files), "B")
        detail = (
            f"{package.path}\n{len(package.manifest.files)} files, {size}. This cannot be undone."
        )
        self.app.push_screen(
            ConfirmScreen(f"Delete {package.manifest.name}?", detail, "Delete", "Keep it"), answered
        )

    @work(thread=True, exclusive=True, group="package")
    def _delete(self, package: Package) -> None:
        from packager.package import shelf

        try:
            shelf.delete(package.path)
            self.app.call_from_thread(self.action_reload)
        except Exception as error:
            if from_foreign(error) is None:
                raise
            self._report(error)

    def home(self) -> None:
        """The table."""
        self.set_focus(self.query_one(VimTable))

    def copied(self) -> tuple[str, str] | None:
        """The path."""
        return (str(self.package.path), "the path of the package") if self.package else None
