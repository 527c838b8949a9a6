"""Step 3: what runs there? The catalogue times the recipes, filtered as you type, with what-if
sliders and every reason."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from packager.errors import from_foreign
from packager.predict.memory import KV_BITS
from packager.units import human_bytes, human_seconds
from tui import describe, explain
from tui.screens.base import BACK, COPY, Failed, Problem, StepScreen
from tui.table import KEYS, haystack
from tui.widgets.candidates import CandidateTable
from tui.widgets.pane import Pane
from tui.widgets.slider import Slider

if TYPE_CHECKING:
    from packager.select import Candidate
    from tui.ask import Ask
    from tui.core import Found

_DEBOUNCE_S = 0.12


class Answered(Message):
    """The candidates of an ask, with the texts the filter looks in."""

    def __init__(self, found: Found, haystacks: list[str]) -> None:
        super().__init__()
        self.found, self.haystacks = found, haystacks


class CandidatesScreen(StepScreen):
    """A table that moves at once with filter, order and what-if; the highlighted row is explained
    beside or below it."""

    STEP = 3
    CSS_PATH = "candidates.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "Filter",
            id="candidates.filter",
            tooltip="Type parts of names, recipes, licences, rules",
        ),
        Binding(
            "o",
            "order(1)",
            "Order",
            id="candidates.order",
            tooltip="Sort by the next column; a click on a title does the same",
        ),
        Binding(
            "O",
            "turn",
            "Turn round",
            id="candidates.reverse",
            tooltip="Turn the order round",
            show=False,
        ),
        Binding(
            "x",
            "rejected",
            "Rejected",
            id="candidates.rejected",
            tooltip="Hide or show the rejected ones",
        ),
        Binding(
            "w",
            "what_if",
            "What if",
            id="candidates.what-if",
            tooltip="Other context, cache type or memory: the table moves at once",
        ),
        Binding(
            "p",
            "plot",
            "Plot",
            id="candidates.plot",
            tooltip="Memory against speed against quality, with the limits",
        ),
        BACK,
        COPY,
    ]

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask
        self.found: Found | None = None
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        """Filter and what-if on top, the table, the reasons."""
        base = self.ask.workload()
        with Horizontal(id="controls"):
            yield Input(
                placeholder="/ filter: names, recipes, licences, rules", id="filter", compact=True
            )
            yield Static(id="count")
        with Horizontal(id="what-if"):
            contexts = [
                (value, f"{value:,}") for value, _ in describe.steps("context", base.context)
            ]
            yield Slider("context", contexts, base.context, room=(8, 12), id="if-context")
            yield Slider(
                "cache",
                [(None, "its own"), *((kind, kind) for kind in KV_BITS)],
                self.ask.kv,
                room=(6, 12),
                id="if-kv",
            )
            memory = describe.steps("max_memory_bytes", base.max_memory_bytes)
            yield Slider("memory", memory, base.max_memory_bytes, room=(7, 12), id="if-memory")
        with Horizontal(id="candidates"):
            with Vertical(id="candidates-left"):
                yield CandidateTable(id="table")
            with Pane(id="reasons"):
                yield Problem(id="candidates-problem")
                yield Static(id="reason-text")

    def on_mount(self) -> None:
        """Ask at once; the frame stands before the answer."""
        self.query_one("#candidates-left").loading = True
        self.query_one("#reasons").border_title = "Why"
        self.query_one(
            "#candidates-left"
        ).border_title = f"{describe.purpose(self.ask.workload())} on {self.ask.target.name}"
        self._find(self.ask)

    def on_unmount(self) -> None:
        """The collector may look at everything again."""
        gc.unfreeze()

    @work(thread=True, exclusive=True, group="find")
    def _find(self, ask: Ask) -> None:
        try:
            found = self.services.find(self.services, ask)
            self.post_message(Answered(found, [haystack(one) for one in found.candidates]))
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            self.post_message(Failed(known, ask))

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        if message.found.ask != self.ask:
            return
        self.found = message.found
        self.query_one("#candidates-problem", Problem).clear()
        table = self.query_one(CandidateTable)
        table.show(message.found.candidates, message.haystacks)
        self._arrived()
        # Thousands of candidates hold no cycles; without this the collector walks all of them again
        # and again, 100 ms each time.
        gc.freeze()

    @on(Failed)
    def _refused(self, message: Failed) -> None:
        if message.question != self.ask:
            return
        self.query_one(CandidateTable).show((), [])
        self.query_one("#candidates-problem", Problem).show(
            message.error.message, message.error.hint
        )
        self._arrived()

    def _arrived(self) -> None:
        """The first answer brings the table; later ones leave the focus where it is."""
        left = self.query_one("#candidates-left")
        if left.loading:
            left.loading = False
            self.home()
        self._count()

    def _count(self) -> None:
        table = self.query_one(CandidateTable)
        fitting = sum(one.passes for one in table.candidates)
        took = (
            f" in {human_seconds(self.found.seconds)}"
            if self.found and self.found.ask == self.ask and self.found.seconds
            else ""
        )
        text = f"{len(table.rows)} of {len(table.candidates)}, {fitting} fit{took}"
        self.query_one("#count", Static).update(text)

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        table = self.query_one(CandidateTable)
        table.look(replace(table.view, words=event.value))
        self._count()

    @on(Input.Submitted, "#filter")
    def home(self) -> None:
        """The table."""
        self.set_focus(self.query_one(CandidateTable))

    @on(Slider.Moved)
    def _supposed(self, event: Slider.Moved) -> None:
        """Change the ask and wait a moment, in case the slider moves on."""
        if event.slider.id == "if-kv":
            self.ask = replace(self.ask, kv=event.value)
        else:
            field = "context" if event.slider.id == "if-context" else "max_memory_bytes"
            self.ask = self.ask.wishing(**{field: event.value})
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_DEBOUNCE_S, lambda: self._find(self.ask))

    @on(CandidateTable.Highlighted)
    def _explain(self, message: CandidateTable.Highlighted) -> None:
        if message.candidate is None:
            words = self.query_one(CandidateTable).view.words
            text = f"Nothing matches {words!r}. Esc leaves the filter." if words else ""
            self.query_one("#reason-text", Static).update(text)
            return
        misses = self.found.misses if self.found else ()
        parts = explain.candidate(message.candidate, misses)
        self.query_one("#reason-text", Static).update(Content.assemble(*parts))

    @on(CandidateTable.Selected)
    def _plan(self, message: CandidateTable.Selected) -> None:
        from tui.screens.plan import PlanScreen

        candidate = message.candidate
        if not candidate.passes:
            self.notify(
                "; ".join(map(str, candidate.reasons)) + ".",
                title=f"{candidate.label} was rejected",
                severity="warning",
            )
            return
        assert self.found is not None
        if self.found.ask == self.ask:
            self.app.push_screen(PlanScreen(self.found, candidate))

    @on(CandidateTable.SortedBy)
    def _sorted_by(self, message: CandidateTable.SortedBy) -> None:
        table = self.query_one(CandidateTable)
        again = table.view.sort == message.key
        table.look(replace(table.view, sort=message.key, reverse=again and not table.view.reverse))

    def action_order(self, step: int) -> None:
        """Sort by the next column; behind the last comes the core's own order again."""
        table = self.query_one(CandidateTable)
        key = KEYS[(KEYS.index(table.view.sort) + step) % len(KEYS)]
        table.look(replace(table.view, sort=key, reverse=False))
        self.notify(
            "in the order of preference" if key == "rank" else f"by {key}",
            title="Sorted",
            timeout=2,
        )

    def action_turn(self) -> None:
        """Last first."""
        table = self.query_one(CandidateTable)
        table.look(replace(table.view, reverse=not table.view.reverse))

    def action_rejected(self) -> None:
        """Hide or show what does not fit."""
        table = self.query_one(CandidateTable)
        table.look(replace(table.view, rejected=not table.view.rejected))
        self._count()

    def action_filter(self) -> None:
        """Into the filter."""
        self.set_focus(self.query_one("#filter", Input))

    def action_what_if(self) -> None:
        """To the first of the three sliders."""
        self.set_focus(self.query_one("#if-context", Slider))

    def action_plot(self) -> None:
        """The candidates that fit as points."""
        from tui.screens.pareto import ParetoScreen, of_candidates

        if self.found is not None:
            self.app.push_screen(ParetoScreen(of_candidates(self.found)))

    def copied(self) -> tuple[str, str] | None:
        """The highlighted row with its figures and reasons."""
        one: Candidate | None = self.query_one(CandidateTable).highlighted
        if one is None:
            return None
        memory = human_bytes(one.footprint.peak) if one.sized else "unknown"
        return f"{one.label}: {one.verdict}, memory {memory}. " + "; ".join(
            map(str, one.reasons)
        ), one.label
