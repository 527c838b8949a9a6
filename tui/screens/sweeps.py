"""Sweeps: plan files with their forecast, what past ones found, and the start of one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from packager.errors import from_foreign
from packager.escapes import bare, command
from packager.files import expanded
from tui import sweeps
from tui.screens.base import BACK, COPY, Failed, StepScreen
from tui.sweeps import Listed, Shown
from tui.table import shortened
from tui.widgets.lists import VimList, VimTable
from tui.widgets.paths import PathSuggester
from tui.widgets.problem import Problem

_HEADS = {"plan": "Plan files", "sweep": "Sweeps"}
_LEAST, _BESIDE = 46, 140
"""Cells of a text in the table, and of all that stands beside it in a wide window; the whole text
is below."""
_EMPTY = (
    "A sweep builds and measures a matrix of variants, recipes, contexts and devices, which a plan "
    "file names. None is in this folder. A small one:\n\n"
    "  [axes]\n"
    '  variants = ["Qwen3-0.6B"]\n'
    '  recipes = ["gguf:Q8_0", "gguf:Q4_K_M"]\n'
    '  targets = ["laptop-cpu"]\n\n'
    "/ takes the path of one that lies elsewhere."
)


def _side(shown: Shown, place: int) -> Literal["left", "right"]:
    """Where a column is aligned: numbers right."""
    return "right" if place in shown.numbers else "left"


class Found(Message):
    """The plan files and sweeps of the folder."""

    def __init__(self, entries: tuple[Listed, ...]) -> None:
        super().__init__()
        self.entries = entries


class Looked(Message):
    """What an entry holds."""

    def __init__(self, entry: Listed, shown: Shown) -> None:
        super().__init__()
        self.entry, self.shown = entry, shown


class SweepsScreen(StepScreen):
    """A list on the left, the matrix or the last run of the highlighted one on the right."""

    HEADING = "Sweeps"
    CSS_PATH = "sweeps.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "begin", "Start", id="sweeps.begin", tooltip="Build the matrix of the plan"),
        Binding(
            "slash", "path", "Plan file", id="sweeps.path", tooltip="Type the path of a plan file"
        ),
        BACK,
        COPY,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._entries: tuple[Listed, ...] = ()
        self._shown: tuple[Listed, Shown] | None = None

    def body(self) -> ComposeResult:
        """Path and list, sentences and table."""
        with Horizontal(id="sweeps"):
            with Vertical(id="sweeps-left"):
                yield Input(
                    placeholder="/ a plan file",
                    id="sweeps-path",
                    compact=True,
                    suggester=PathSuggester(),
                )
                yield VimList(id="sweeps-list")
            with Vertical(id="sweeps-right"):
                yield Problem(id="sweeps-problem")
                yield Static(id="sweeps-told", markup=False)
                yield VimTable(id="sweeps-table", cursor_type="row", zebra_stripes=True)
                yield Static(id="sweeps-row", markup=False)

    def on_mount(self) -> None:
        """Show the frame at once; the files are read meanwhile."""
        self.query_one("#sweeps-list").border_title = "Plans and sweeps"
        self.query_one("#sweeps-right").border_title = "What it builds"
        self.query_one(VimTable).display = False
        self.set_focus(self.query_one(VimList))
        self._list()

    def on_screen_resume(self) -> None:
        """Back from a sweep: it is among the past ones now."""
        if self._entries or self._shown:
            self._list()

    @work(thread=True, exclusive=True, group="sweeps")
    def _list(self) -> None:
        self.post_message(Found(self.services.sweep_files(self.services.folder)))

    @on(Found)
    def _found(self, message: Found) -> None:
        lines = self.query_one(VimList)
        option = lines.highlighted_option
        own = [
            entry
            for entry in self._entries
            if entry not in message.entries and entry.kind == "plan"
        ]
        self._entries = (*own, *message.entries)
        self._fill(option.id if option is not None else None)
        if not self._entries:
            self._tell((_EMPTY,))

    def _fill(self, at: str | None) -> None:
        """The entries below the name of their kind, the cursor on the one with the id `at`."""
        lines, last = self.query_one(VimList), ""
        lines.clear_options()
        for entry in self._entries:
            if entry.kind != last:
                head = Content.styled(f"─ {_HEADS[entry.kind]} ", "$foreground-muted")
                lines.add_option(Option(head, disabled=True))
                last = entry.kind
            lines.add_option(Option(Content(bare(entry.path.name)), id=str(entry.path)))
        ids = {str(entry.path) for entry in self._entries}
        if at in ids:
            lines.highlighted = lines.get_option_index(at)
        elif self._entries:
            lines.action_first()

    @property
    def _highlighted(self) -> Listed | None:
        option = self.query_one(VimList).highlighted_option
        wanted = None if option is None else option.id
        return next((entry for entry in self._entries if str(entry.path) == wanted), None)

    @on(OptionList.OptionHighlighted, "#sweeps-list")
    def _describe(self) -> None:
        entry = self._highlighted
        if entry is not None:
            self._look(entry)

    @work(thread=True, exclusive=True, group="look")
    def _look(self, entry: Listed) -> None:
        try:
            self.post_message(Looked(entry, self.services.sweep_shown(self.services, entry)))
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            self.post_message(Failed(known, entry))

    @on(Looked)
    def _looked(self, message: Looked) -> None:
        if message.entry != self._highlighted:
            return
        shown = message.shown
        self._shown = (message.entry, shown)
        self.query_one(Problem).clear()
        self.query_one("#sweeps-right").border_title = Content(bare(shown.title))
        self._tell(shown.sentences)
        table = self.query_one(VimTable)
        table.display = True
        table.clear(columns=True)
        for place, title in enumerate(shown.columns):
            table.add_column(Text(title, justify=_side(shown, place)), key=str(place))
        for row in shown.rows:
            table.add_row(*(self._cell(shown, place, text) for place, text in enumerate(row)))
        self._row()
        self.refresh_bindings()

    @on(VimTable.RowHighlighted)
    def _row(self) -> None:
        """The whole of the highlighted row's last column: why a cell cannot be built, or what it
        came to."""
        row = self.query_one(VimTable).cursor_row
        rows = self._shown[1].rows if self._shown is not None else ()
        text = rows[row][-1] if row < len(rows) else ""
        line = self.query_one("#sweeps-row", Static)
        line.display = bool(text)
        line.update(bare(f"{' '.join(rows[row][:3])}: {text}") if text else "")

    def _cell(self, shown: Shown, place: int, text: str) -> Text:
        room = max(_LEAST, self.app.size.width - _BESIDE)
        return Text(shortened(bare(text), room), justify=_side(shown, place))

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        if message.question != self._highlighted:
            return
        self._shown = None
        self._tell(())
        for name in ("#sweeps-table", "#sweeps-row"):
            self.query_one(name).display = False
        self.refuse(self.query_one(Problem), message.error)
        self.refresh_bindings()

    def _tell(self, sentences: tuple[str, ...]) -> None:
        shown = self.query_one("#sweeps-told", Static)
        shown.display = bool(sentences)
        shown.update("\n".join(sentences))

    @on(Input.Submitted, "#sweeps-path")
    def _named(self, event: Input.Submitted) -> None:
        """A plan file that lies elsewhere: it stands in the list from now on."""
        if not event.value.strip():
            self.home()
            return
        entry = Listed("plan", expanded(event.value.strip()).absolute())
        if entry not in self._entries:
            self._entries = (entry, *self._entries)
        self._fill(str(entry.path))
        self.home()

    @on(OptionList.OptionSelected, "#sweeps-list")
    def _chosen(self) -> None:
        self.action_begin()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only a plan of which something can be built is started."""
        if action == "begin":
            return self._shown is not None and self._shown[1].order is not None
        return True

    def action_begin(self) -> None:
        """Ask, then build the matrix of the highlighted plan."""
        from tui.screens.confirm import ConfirmScreen
        from tui.screens.sweep import Job, SweepScreen

        shown = self._shown
        if shown is None or shown[0] != self._highlighted or shown[1].order is None:
            return
        order = shown[1].order
        if self.pack.measuring:
            self.notify(
                f"{self.pack.measuring} is being measured or built, and a sweep would disturb it.",
                severity="warning",
            )
            return

        def answered(yes: bool | None) -> None:
            if yes:
                job = Job(order.plan.name, order.matrix.planned, lambda: sweeps.run(order))
                self.app.push_screen(SweepScreen(job))

        detail = f"{shown[1].sentences[0]}\nInto {order.root}; it can be stopped at any time."
        self.app.push_screen(
            ConfirmScreen(f"Start the sweep {order.plan.name}?", detail, "Start", "Not now"),
            answered,
        )

    def action_path(self) -> None:
        """Into the field."""
        self.set_focus(self.query_one(Input))

    def home(self) -> None:
        """The list."""
        self.set_focus(self.query_one(VimList))

    def copied(self) -> tuple[str, str] | None:
        """The command line that does the same."""
        entry = self._highlighted
        if entry is None:
            return None
        words = ["qwen-pack", "sweep", *(["report"] if entry.kind == "sweep" else [])]
        return command([*words, str(_near(entry.path))]), "the command"


def _near(path: Path) -> Path:
    """A path as it is written from here."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
