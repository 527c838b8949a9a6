"""The table of candidates as a widget: only the lines that are seen are drawn, so thousands of rows
cost what forty do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.bars import bar
from tui.table import COLUMNS, NONE, Column, View, haystack

if TYPE_CHECKING:
    from packager.select import Candidate

MARKS = {"chosen": "★", "fits": "✓", "may miss": "~", "rejected": "✗"}
_ALWAYS = ("variant", "recipe", "memory", "decode", "ttft")
_THEN = ("quality", "params", "artifact")
_BARS = ("memory", "decode")
_BAR = 10


@lru_cache(maxsize=8)
def layout(width: int) -> tuple[tuple[Column, int, int], ...]:
    """The columns that `width` cells hold, each with its cells and those of its bar: names shrink
    first, then come more columns, then bars."""
    chosen = [column for column in COLUMNS if column.key in _ALWAYS]
    used = 2 + sum(column.width + 1 for column in chosen)
    cells = {column.key: column.width for column in COLUMNS}
    for key, least in (("recipe", 18), ("variant", 16)):
        cut = min(max(0, used - width), cells[key] - least)
        cells[key] -= cut
        used -= cut
    for key in _THEN:
        if used + cells[key] + 1 <= width:
            chosen.append(next(column for column in COLUMNS if column.key == key))
            used += cells[key] + 1
    bars = dict.fromkeys(_BARS, 0)
    for key in _BARS:
        if used + _BAR + 1 <= width:
            bars[key] = _BAR
            used += _BAR + 1
    return tuple(
        (column, cells[column.key], bars.get(column.key, 0))
        for column in COLUMNS
        if column in chosen
    )


class CandidateTable(ScrollView, can_focus=True):
    """Rows of candidates under a header that stays. Posts Highlighted, Selected and SortedBy."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", id="list.down", tooltip="One row down", show=False),
        Binding("up,k", "move(-1)", "Up", id="list.up", tooltip="One row up", show=False),
        Binding(
            "pagedown,ctrl+d",
            "page(1)",
            "Page down",
            id="list.page-down",
            tooltip="One page down",
            show=False,
        ),
        Binding(
            "pageup,ctrl+u",
            "page(-1)",
            "Page up",
            id="list.page-up",
            tooltip="One page up",
            show=False,
        ),
        Binding("home,g", "go(0)", "First", id="list.first", tooltip="The first row", show=False),
        Binding("end,G", "go(-1)", "Last", id="list.last", tooltip="The last row", show=False),
        Binding(
            "enter",
            "select",
            "Plan it",
            id="candidates.select",
            tooltip="Plan the build of the highlighted candidate",
        ),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--fits",
        "table--chosen",
        "table--rejected",
        "table--cursor",
        "table--bar",
    }
    cursor = reactive(0)

    class Highlighted(Message):
        """Another candidate is under the cursor; None where there is no row."""

        def __init__(self, candidate: Candidate | None) -> None:
            super().__init__()
            self.candidate = candidate

    class Selected(Message):
        """This candidate was chosen by hand."""

        def __init__(self, candidate: Candidate) -> None:
            super().__init__()
            self.candidate = candidate

    class SortedBy(Message):
        """A column's header was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.candidates: Sequence[Candidate] = ()
        self.haystacks: Sequence[str] = ()
        self.view = View()
        self.rows: list[int] = []
        self._most = {"memory": 1.0, "decode": 1.0}

    @property
    def highlighted(self) -> Candidate | None:
        """The candidate under the cursor."""
        return self.candidates[self.rows[self.cursor]] if self.cursor < len(self.rows) else None

    def show(self, candidates: Sequence[Candidate], haystacks: Sequence[str] | None = None) -> None:
        """Take other candidates; the cursor stays on the same variant and recipe where they are
        still there."""
        self.candidates = candidates
        self.haystacks = haystacks or [haystack(one) for one in candidates]
        passing = [one for one in candidates if one.passes] or [
            one for one in candidates if one.sized
        ]
        self._most = {
            "memory": max((float(one.footprint.peak) for one in passing), default=1.0),
            "decode": max((one.forecast.decode_tps for one in passing), default=1.0),
        }
        self.look(self.view)

    def look(self, view: View) -> None:
        """Filter and sort otherwise."""
        # Other words start at the best match; everything else keeps the eye where it is.
        before = self.highlighted if view.words == self.view.words else None
        self.view = view
        self.rows = view.rows(self.candidates, self.haystacks)
        same = (before.variant.repo_id, before.recipe.id) if before else None
        where = (
            index
            for index, row in enumerate(self.rows)
            if same == (self.candidates[row].variant.repo_id, self.candidates[row].recipe.id)
        )
        self.set_reactive(CandidateTable.cursor, next(where, 0) if same else 0)
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._into_sight()
        self.refresh()
        self.post_message(self.Highlighted(self.highlighted))

    def render_line(self, y: int) -> Strip:
        """One line of the screen: the header, or the row that scrolling has brought there."""
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        row = y - 1 + self.scroll_offset.y
        if row >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        candidate = self.candidates[self.rows[row]]
        style = self.get_component_rich_style(f"table--{candidate.verdict}")
        bars = self.get_component_rich_style("table--bar") if candidate.passes else style
        if row == self.cursor:
            style = self.get_component_rich_style("table--cursor") + Style(
                bold=candidate.verdict == "chosen"
            )
            bars = style
        segments = [Segment(f"{MARKS[candidate.verdict]} ", style)]
        for column, cells, bar_width in layout(width):
            text = column.text(candidate)
            if bar_width:
                value = (
                    candidate.footprint.peak
                    if column.key == "memory"
                    else candidate.forecast.decode_tps
                )
                share = (
                    value / self._most[column.key]
                    if candidate.sized and self._most[column.key]
                    else 0
                )
                segments.append(Segment(bar(share, bar_width) + " ", bars))
            segments.append(Segment(_cell(text, cells, column.right) + " ", style))
        return Strip(segments).adjust_cell_length(width, style)

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--header")
        segments = [Segment("  ", style)]
        for column, cells, bar_width in layout(width):
            arrow = ("▼" if self.view.reverse else "▲") if self.view.sort == column.key else ""
            title = _cell(f"{column.title}{arrow}", cells, column.right)
            segments.append(Segment(" " * (bar_width + 1 if bar_width else 0) + title + " ", style))
        return Strip(segments).adjust_cell_length(width, style)

    def watch_cursor(self, before: int, now: int) -> None:
        """Follow with the scroll position and tell the screen; where nothing scrolls only two lines
        are drawn again."""
        top = self.scroll_offset.y
        self._into_sight()
        if self.scroll_offset.y == top:
            # Below the header, which takes the first line.
            self.refresh_line(before + 1)
            self.refresh_line(now + 1)
        else:
            self.refresh()
        self.post_message(self.Highlighted(self.highlighted))

    def _into_sight(self) -> None:
        page = max(1, self.size.height - 1)
        top = round(self.scroll_y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True)
        elif self.cursor >= top + page:
            self.scroll_to(y=self.cursor - page + 1, animate=False, immediate=True)

    def on_resize(self) -> None:
        """Another width holds other columns."""
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._into_sight()

    def action_move(self, rows: int) -> None:
        """So many rows down."""
        self.cursor = min(max(0, len(self.rows) - 1), max(0, self.cursor + rows))

    def action_page(self, pages: int) -> None:
        """So many pages down."""
        self.action_move(pages * max(1, self.size.height - 2))

    def action_go(self, index: int) -> None:
        """To the first row (0) or the last (-1)."""
        self.cursor = index % len(self.rows) if self.rows else 0

    def action_select(self) -> None:
        """Choose what is under the cursor."""
        if self.highlighted is not None:
            self.post_message(self.Selected(self.highlighted))

    def on_click(self, event: events.Click) -> None:
        """A click on a title sorts, on a row highlights it, on the highlighted one chooses it."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            key = _column_at(offset.x, self.scrollable_content_region.width)
            if key:
                self.post_message(self.SortedBy(key))
            return
        row = offset.y - 1 + self.scroll_offset.y
        if row == self.cursor:
            self.action_select()
        elif row < len(self.rows):
            self.cursor = row


def _cell(text: str, cells: int, right: bool) -> str:
    if len(text) > cells:
        text = text[: cells - 1] + "…"
    return text.rjust(cells) if right else text.ljust(cells)


def _column_at(x: int, width: int) -> str | None:
    at = 2
    for column, cells, bar_width in layout(width):
        at += cells + 1 + (bar_width + 1 if bar_width else 0)
        if x < at:
            return column.key
    return None


__all__ = ["MARKS", "NONE", "CandidateTable", "layout"]
