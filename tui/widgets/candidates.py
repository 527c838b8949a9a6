"""The table of candidates as a widget: only the lines that are seen are drawn, so thousands of rows
cost what forty do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

from tui.bars import line
from tui.table import (
    COLUMNS,
    NONE,
    WITHOUT_ANSWER,
    Column,
    View,
    haystack,
    shortened,
    speed,
    task,
)

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
    for key, least in (("variant", 22), ("recipe", 18), ("variant", 16)):
        cut = min(max(0, used - width), cells[key] - least)
        cells[key] -= cut
        used -= cut
    if used > width:
        # Where there is no room the wait for the first token stands below, with the reasons.
        chosen = [column for column in chosen if column.key != "ttft"]
        used -= cells["ttft"] + 1
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
        Binding(
            "space",
            "unfold",
            "Recipes",
            id="candidates.unfold",
            tooltip="Show or hide the other recipes of this variant",
        ),
        Binding(
            "u",
            "unfold_all",
            "Every recipe",
            id="candidates.ungroup",
            tooltip="All variants in all recipes, or in one",
            show=False,
        ),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--fits",
        "table--may-miss",
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

    class Viewed(Message):
        """Other rows are wanted: groups were folded or unfolded."""

        def __init__(self, view: View) -> None:
            super().__init__()
            self.view = view

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
        self._more: dict[str, int] = {}
        self._most = {"memory": 1.0, "decode": 1.0}

    @property
    def highlighted(self) -> Candidate | None:
        """The candidate under the cursor; None where there is no row."""
        row = self.rows[self.cursor] if self.cursor < len(self.rows) else None
        return self.candidates[row] if row is not None and row < len(self.candidates) else None

    def show(self, candidates: Sequence[Candidate], haystacks: Sequence[str] | None = None) -> None:
        """Take other candidates; the cursor stays on the same variant and recipe where they are
        still there."""
        # Asked before the rows change: they are places in the candidates that were shown until now.
        before = self.highlighted
        self.candidates = candidates
        self.haystacks = haystacks or [haystack(candidate) for candidate in candidates]
        passing = [candidate for candidate in candidates if candidate.passes] or [
            candidate for candidate in candidates if candidate.sized
        ]
        self._most = {
            "memory": max((float(candidate.footprint.peak) for candidate in passing), default=1.0),
            "decode": max((speed(candidate) for candidate in passing), default=1.0),
        }
        self._arrange(before)

    def seek(self, variant: str, recipe: str) -> None:
        """To the row of that variant and recipe, where there is one."""
        for place, row in enumerate(self.rows):
            candidate = self.candidates[row]
            if (candidate.variant.repo_id, candidate.recipe.id) == (variant, recipe):
                self.cursor = place
                return

    def look(self, view: View) -> None:
        """Filter and sort otherwise."""
        # Other words start at the best match; everything else keeps the eye where it is.
        before = self.highlighted if view.words == self.view.words else None
        self.view = view
        self._arrange(before)

    def _arrange(self, before: Candidate | None) -> None:
        """The rows of the present view, with the cursor on the candidate it was on."""
        self.rows = self.view.rows(self.candidates, self.haystacks)
        self._more = self.view.more(self.candidates, self.haystacks)
        self.set_reactive(CandidateTable.cursor, self._place(before))
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._into_sight()
        self.refresh()
        self.post_message(self.Highlighted(self.highlighted))

    def _place(self, before: Candidate | None) -> int:
        """The row of the same variant and recipe, else the first of the same variant, else the
        first of all."""
        if before is None:
            return 0
        shown = [self.candidates[row] for row in self.rows]
        of_variant = [
            place
            for place, candidate in enumerate(shown)
            if candidate.variant.repo_id == before.variant.repo_id
        ]
        return next(
            (place for place in of_variant if shown[place].recipe.id == before.recipe.id),
            next(iter(of_variant), 0),
        )

    def action_unfold(self) -> None:
        """Show or hide the other recipes of the variant under the cursor."""
        candidate = self.highlighted
        if candidate is not None and self.view.grouped:
            self.post_message(
                self.Viewed(
                    replace(self.view, unfolded=self.view.unfolded ^ {candidate.variant.repo_id})
                )
            )

    def action_unfold_all(self) -> None:
        """Every variant in all its recipes, or in the first of them."""
        self.post_message(self.Viewed(replace(self.view, grouped=not self.view.grouped)))

    def render_line(self, y: int) -> Strip:
        """One line of the screen: the header, or the row that scrolling has brought there."""
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        row = y - 1 + self.scroll_offset.y
        if row >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        candidate = self.candidates[self.rows[row]]
        style = self.get_component_rich_style(f"table--{candidate.verdict.replace(' ', '-')}")
        bars = self.get_component_rich_style("table--bar") if candidate.passes else style
        if row == self.cursor:
            style = self.get_component_rich_style("table--cursor") + Style(
                bold=candidate.verdict == "chosen"
            )
            bars = style
        segments = [Segment(f"{MARKS[candidate.verdict]} ", style)]
        for column, cells, bar_width in layout(width):
            text = (
                self._folded(row, column.text(candidate), cells)
                if column.key == "variant"
                else column.text(candidate)
            )
            segments.append(Segment(_cell(text, cells, column.right) + " ", style))
            if bar_width:
                value = candidate.footprint.peak if column.key == "memory" else speed(candidate)
                share = (
                    value / self._most[column.key]
                    if candidate.sized and self._most[column.key]
                    else 0
                )
                segments.append(Segment(line(share, bar_width) + " ", bars))
        return Strip(segments).adjust_cell_length(width, style)

    def _folded(self, row: int, name: str, cells: int) -> str:
        """The name of a variant with how many recipes stand behind it; those that are unfolded are
        set in."""
        repo = self.candidates[self.rows[row]].variant.repo_id
        count = self._more.get(repo, 1)
        if count < 2:
            return name
        if repo not in self.view.unfolded:
            more = f" ▸{count}"
            return name.ljust(cells - len(more)) + more if len(name) + len(more) <= cells else name
        first = row == 0 or self.candidates[self.rows[row - 1]].variant.repo_id != repo
        return f"{name} ▾" if first else f"  {name}"

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--header")
        segments = [Segment("  ", style)]
        answers = not self.candidates or task(self.candidates[0]) == "generate"
        for column, cells, bar_width in layout(width):
            direction = "▼" if self.view.reverse else "▲"
            arrow = direction if self.view.sort == column.key else ""
            name = column.title if answers else WITHOUT_ANSWER.get(column.key, column.title)
            title = _cell(f"{name}{arrow}", cells, column.right)
            segments.append(Segment(title + " " + " " * (bar_width + 1 if bar_width else 0), style))
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
        text = text[: cells - 1] + "…" if right else shortened(text, cells)
    return text.rjust(cells) if right else text.ljust(cells)


def _column_at(x: int, width: int) -> str | None:
    at = 2
    for column, cells, bar_width in layout(width):
        at += cells + 1 + (bar_width + 1 if bar_width else 0)
        if x < at:
            return column.key
    return None


__all__ = ["MARKS", "NONE", "CandidateTable", "layout"]
