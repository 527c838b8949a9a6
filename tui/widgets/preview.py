"""What would fit, beside the screen that asks: the best combination of every variant, asked again
whenever the question changes. Only where the window has room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.timer import Timer

from packager.errors import from_foreign
from packager.units import human_bytes
from tui import describe
from tui.bars import line
from tui.table import by_variant, rate, shortened, speed, task
from tui.widgets.pane import Fitted, Pane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.select import Candidate
    from tui.ask import Ask
    from tui.core import Found
    from tui.explain import Parts
    from tui.services import Services

_WAIT_S = 0.3
"""Seconds in which a question may change again before it is asked."""
_MARKS = {"chosen": "★", "fits": "✓", "may miss": "~", "rejected": "✗"}
_STYLES = {"chosen": "bold $text-success", "rejected": "$foreground-muted"}
_FIXED, _BAR = 25, 12
"""Cells of mark, memory and speed; of a bar."""


class Preview(Pane):
    """The answer to the latest `ask`, a row per variant."""

    class Answered(Message):
        """An answer, or why there is none."""

        def __init__(self, ask: Ask, found: Found | None, why: str = "") -> None:
            super().__init__()
            self.ask, self.found, self.why = ask, found, why

    def __init__(self, services: Services, *, id: str) -> None:
        super().__init__(id=id)
        self._services = services
        self._ask: Ask | None = None
        self._asked: Ask | None = None
        self._found: Found | None = None
        self._why = ""
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Rows of text: nothing here is chosen."""
        yield Fitted(id=f"{self.id}-text")

    def on_mount(self) -> None:
        """Its name."""
        self.border_title = "What fits"

    def question(self, ask: Ask | None) -> None:
        """Another question; None where there is nothing to ask about."""
        if ask == self._ask:
            return
        self._ask = ask
        if ask is None:
            self._asked, self._found, self._why = None, None, ""
            self._draw()
            return
        self._soon()

    def on_show(self) -> None:
        """There is room now: what was asked meanwhile is asked."""
        self._soon()

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_WAIT_S, self._begin)

    @property
    def waits(self) -> bool:
        """Whether a question is about to be asked."""
        return self._timer is not None

    def _begin(self) -> None:
        self._timer = None
        visible = self.display and self.content_size.width > 0
        if self._ask is not None and self._ask != self._asked and visible:
            self._asked = self._ask
            self._find(self._ask)

    @work(thread=True, exclusive=True, group="preview")
    def _find(self, ask: Ask) -> None:
        try:
            # Wishes that contradict each other are said here, not when the answer is drawn.
            ask.workload()
            self.post_message(self.Answered(ask, self._services.find(self._services, ask)))
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            self.post_message(self.Answered(ask, None, known.message))

    @on(Answered)
    def _answered(self, message: Preview.Answered) -> None:
        message.stop()
        if message.ask == self._ask:
            self._found, self._why = message.found, message.why
            self._draw()

    @on(Fitted.Resized)
    def _draw(self) -> None:
        text = self.query_one(Fitted)
        parts: Parts = [(self._why, "$text-warning")]
        if self._found is not None:
            self.border_title = f"What fits: {describe.purpose(self._found.ask.workload())}"
            parts = rows(self._found, text.content_size.width)
        text.update(Content.assemble(*parts))


def rows(found: Found, width: int) -> Parts:
    """How many fit, and a row for each variant in `width` cells: the best combination of each,
    those that fit first."""
    groups = by_variant(found.candidates, range(len(found.candidates)))
    best = [found.candidates[places[0]] for places in groups.values()]
    fitting = [candidate for candidate in best if candidate.passes]
    parts: Parts = [
        (f"{len(fitting)} of {len(best)} variants fit", "bold"),
        (", best first\n\n" if fitting else "\n\n", ""),
    ]
    if found.nothing:
        parts = [(f"✗ {found.nothing}\n\n", "$text-error")]
    most = max((candidate.footprint.peak for candidate in fitting), default=0)
    for candidate in best:
        parts += _row(candidate, most, width)
    return parts


def _row(one: Candidate, most: int, width: int) -> Sequence[tuple[str, str]]:
    style = _STYLES.get(one.verdict, "")
    track = _BAR if width >= _FIXED + _BAR + 20 else 0
    room = max(12, min(34, width - _FIXED - track))
    name = f"{_MARKS[one.verdict]} {shortened(one.variant.name, room):<{room}} "
    if not one.passes:
        rules = ", ".join(dict.fromkeys(reason.rule for reason in one.reasons))
        return [(f"{name}{shortened(rules, max(8, width - len(name)))}\n", style)]
    unit = "tok/s" if task(one) == "generate" else "read/s"
    bar = f" {line(one.footprint.peak / most, track)}" if track and most else ""
    return [
        (f"{name}{human_bytes(one.footprint.peak):>8}", style),
        (bar, "$primary"),
        (f" {rate(speed(one)):>6} {unit}\n", style),
    ]
