"""Step 3: what runs there? The catalogue times the recipes, filtered as you type, with what-if
sliders and every reason."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static

from packager.errors import PackError, from_foreign
from packager.units import human_bytes, human_seconds
from tui import describe, explain
from tui.change import changed
from tui.points import label_of, of_candidates
from tui.screens.base import BACK, COPY, Failed, StepScreen
from tui.table import KEYS, View, haystack, task
from tui.widgets.candidates import CandidateTable
from tui.widgets.misses import MissList
from tui.widgets.pane import Pane
from tui.widgets.problem import Problem
from tui.widgets.scatter import ScatterPlot
from tui.widgets.slider import Slider
from tui.widgets.what_if import WhatIf

if TYPE_CHECKING:
    from packager.select import Candidate
    from packager.select.misses import Miss
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
            "Reverse order",
            id="candidates.reverse",
            tooltip="The last first",
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

    CONTROLS: ClassVar[dict[str, tuple[str, str]]] = {
        "--context": ("#if-context", "context above"),
        "--max-memory-mb": ("#if-memory", "memory above"),
        "--lora": ("", "Adapters in step 2"),
        "--weights": ("", "Weights in step 2"),
    }

    def __init__(self, ask: Ask, view: View | None = None) -> None:
        """`view` is the filter and the order of an earlier visit."""
        super().__init__()
        self.ask = ask
        self.view = view or View()
        self.found: Found | None = None
        self._first = ask
        self._timer: Timer | None = None
        self._sought: tuple[str, str] | None = None

    def body(self) -> ComposeResult:
        """Filter and what-if on top, the table, the reasons."""
        with Horizontal(id="controls"):
            yield Input(
                self.view.words,
                placeholder="/ filter: names, recipes, licences, rules",
                id="filter",
                compact=True,
            )
            yield Static(id="count")
        yield WhatIf(self.ask)
        yield Static(id="nothing-fits", markup=False)
        yield MissList(id="misses")
        with Horizontal(id="candidates"):
            with Vertical(id="candidates-left"):
                yield CandidateTable(id="table")
            with Vertical(id="candidates-right"):
                with Pane(id="reasons"):
                    yield Problem(id="candidates-problem")
                    yield Static(id="reason-text")
                yield ScatterPlot(id="candidates-plot")

    def on_mount(self) -> None:
        """Ask at once; the frame stands before the answer."""
        self.query_one(CandidateTable).view = self.view
        self.query_one("#candidates-left").loading = True
        self.query_one("#reasons").border_title = "Why"
        self.query_one("#misses").border_title = "One change would do"
        self._entitle()
        self._find(self.ask)

    def _entitle(self) -> None:
        """What is asked, and whether its figures deserve less trust."""
        left = self.query_one("#candidates-left")
        left.border_title = Content(
            f"{describe.purpose(self.ask.workload())} on {self.ask.target.name}"
        )
        disturbed = describe.disturbance(self.ask.target)
        order = f"best first: {self.ask.workload().prefer}"
        left.border_subtitle = f"! speed {disturbed}; step 1 measures again" if disturbed else order

    def on_unmount(self) -> None:
        """The collector may look at everything again."""
        gc.unfreeze()

    @work(thread=True, exclusive=True, group="find")
    def _find(self, ask: Ask) -> None:
        try:
            answer = self.services.find(self.services, ask)
            self.post_message(
                Answered(answer, [haystack(candidate) for candidate in answer.candidates])
            )
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
        self.query_one("#candidates").remove_class("-refused")
        table = self.query_one(CandidateTable)
        table.show(message.found.candidates, message.haystacks)
        if self._sought is not None:
            table.seek(*self._sought)
            self._sought = None
        self.query_one(WhatIf).offer(message.found.cache_types, self.ask.kv)
        self._show_misses(message.found)
        self.query_one(ScatterPlot).show(of_candidates(message.found))
        self._arrived()
        # Thousands of candidates hold no cycles; without this the collector walks all of them again
        # and again, 100 ms each time.
        gc.freeze()

    @on(Failed)
    def _refused(self, message: Failed) -> None:
        if message.question != self.ask:
            return
        self.query_one(CandidateTable).show((), [])
        self.query_one("#candidates").add_class("-refused")
        for name in ("#nothing-fits", "#misses"):
            self.query_one(name).display = False
        self._arrived()
        self.refuse(self.query_one("#candidates-problem", Problem), message.error)

    def _show_misses(self, found: Found) -> None:
        """Where nothing fits: the sentence, and the ways on as rows that make themselves true."""
        self.query_one("#nothing-fits").display = bool(found.nothing)
        more = (
            ""
            if found.misses or not found.nothing
            else " No single change makes a variant fit; the reason is next to each."
        )
        self.query_one("#nothing-fits", Static).update(f"✗ {found.nothing}{more}")
        self.query_one(MissList).show(found.misses)

    @on(OptionList.OptionSelected, "#misses")
    def _change(self, event: OptionList.OptionSelected) -> None:
        """Make the change of that row, and stand on what fits with it."""
        assert self.found is not None
        self._apply(self.found.misses[event.option_index])

    @work(thread=True, exclusive=True, group="find")
    def _apply(self, miss: Miss) -> None:
        try:
            ask = changed(self.ask, miss, self.services.read_target)
        except PackError as error:
            self.post_message(Failed(error, self.ask))
            return
        self.app.call_from_thread(self._asked, ask, miss)

    def _asked(self, ask: Ask, miss: Miss) -> None:
        """Another question, asked by one of the rows: the sliders follow it."""
        self.ask, self._sought = ask, (miss.then.variant.repo_id, miss.then.recipe.id)
        self.query_one(WhatIf).show(ask.workload(), self._first.workload())
        self._entitle()
        self.home()
        self._find(ask)

    def _arrived(self) -> None:
        """The first answer brings the table; later ones leave the focus where it is."""
        left = self.query_one("#candidates-left")
        if left.loading:
            left.loading = False
            self.home()
            if self.found is not None and self.found.misses:
                self.set_focus(self.query_one(MissList))
        self._count()

    def _count(self) -> None:
        table = self.query_one(CandidateTable)
        fitting = sum(candidate.passes for candidate in table.candidates)
        took = (
            f" in {human_seconds(self.found.seconds)}"
            if self.found and self.found.ask == self.ask and self.found.seconds
            else ""
        )
        variants = len({candidate.variant.repo_id for candidate in table.candidates})
        text = (
            f"{len(table.rows)} rows: {variants} variants, {len(table.candidates)} with "
            f"recipes, {fitting} fit{took}"
        )
        if self.size.width < 110:
            text = f"{len(table.rows)} of {len(table.candidates)}, {fitting} fit"
        self.query_one("#count", Static).update(text)

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._look(words=event.value)

    def _look(self, **fields: Any) -> None:
        """Another filter or order; it is kept for the way back here."""
        table = self.query_one(CandidateTable)
        self.view = replace(table.view, **fields)
        table.look(self.view)
        self._count()

    @on(Input.Submitted, "#filter")
    def home(self) -> None:
        """The table."""
        self.set_focus(self.query_one(CandidateTable))

    @on(Slider.Moved)
    def _supposed(self, event: Slider.Moved) -> None:
        """Change the ask and wait a moment, in case the slider moves on."""
        self.ask = self.query_one(WhatIf).tried(self.ask, event)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_DEBOUNCE_S, lambda: self._find(self.ask))

    @on(CandidateTable.Highlighted)
    def _explain(self, message: CandidateTable.Highlighted) -> None:
        if message.candidate is None:
            words = self.query_one(CandidateTable).view.words
            text = f"Nothing matches {words!r}. Esc clears the filter." if words else ""
            self.query_one("#reason-text", Static).update(text)
            return
        self.query_one(ScatterPlot).mark(label_of(message.candidate))
        parts = explain.candidate(message.candidate)
        absent = self.found.absent.get(message.candidate.runtime) if self.found else None
        if absent:
            parts += [("\n! ", "$text-warning"), (absent, "$text-warning")]
        self.query_one("#reason-text", Static).update(Content.assemble(*parts))

    @on(CandidateTable.Selected)
    def _plan(self, message: CandidateTable.Selected) -> None:
        from tui.screens.plan import PlanScreen

        candidate = message.candidate
        if not candidate.passes:
            reasons = "; ".join(
                f"{reason.rule}: {explain.why_not(reason, task(candidate))}"
                for reason in candidate.reasons
            )
            self.notify(f"{reasons}.", title=f"{candidate.label} was rejected", severity="warning")
            return
        assert self.found is not None
        if self.found.ask == self.ask:
            self.app.push_screen(PlanScreen(self.found, candidate))

    @on(CandidateTable.Viewed)
    def _viewed(self, message: CandidateTable.Viewed) -> None:
        self.view = message.view
        self.query_one(CandidateTable).look(self.view)
        self._count()

    @on(CandidateTable.SortedBy)
    def _sorted_by(self, message: CandidateTable.SortedBy) -> None:
        again = self.view.sort == message.key
        self._look(sort=message.key, reverse=again and not self.view.reverse)

    def action_order(self, step: int) -> None:
        """Sort by the next column; after the last comes the order of preference again."""
        key = KEYS[(KEYS.index(self.view.sort) + step) % len(KEYS)]
        self._look(sort=key, reverse=False)
        self.notify(
            "in the order of preference" if key == "rank" else f"by {key}",
            title="Sorted",
            timeout=2,
        )

    def action_turn(self) -> None:
        """Last first."""
        self._look(reverse=not self.view.reverse)

    def action_rejected(self) -> None:
        """Hide or show what does not fit."""
        self._look(rejected=not self.view.rejected)

    def action_back(self) -> None:
        """Out of the filter, then without it, then to the step before."""
        if not isinstance(self.focused, Input) and self.view.words:
            self.query_one("#filter", Input).value = ""
        else:
            super().action_back()

    def action_filter(self) -> None:
        """Into the filter."""
        self.set_focus(self.query_one("#filter", Input))

    def action_what_if(self) -> None:
        """To the first of the three sliders."""
        self.set_focus(self.query_one("#if-context", Slider))

    def action_plot(self) -> None:
        """The candidates that fit as points."""
        from tui.screens.pareto import ParetoScreen

        if self.found is not None:
            self.app.push_screen(ParetoScreen(of_candidates(self.found)))

    def copied(self) -> tuple[str, str] | None:
        """The highlighted row with its figures and reasons."""
        candidate: Candidate | None = self.query_one(CandidateTable).highlighted
        if candidate is None:
            return None
        memory = human_bytes(candidate.footprint.peak) if candidate.sized else "unknown"
        return f"{candidate.label}: {candidate.verdict}, memory {memory}. " + "; ".join(
            map(str, candidate.reasons)
        ), candidate.label
