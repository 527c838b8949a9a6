"""What drafted tokens cost and gain."""

from __future__ import annotations

from typing import Literal

from packager.records.base import Count, Number, Record, Tokens


class SpeculationStep(Record, frozen=True, kw_only=True):
    """So many drafted tokens checked at once: milliseconds, and the least share of them that has to
    be right for that to pay; None where it never does."""

    drafted: Tokens
    check_ms: Number | None = None
    break_even: Number | None = None


class SpeculationKind(Record, frozen=True, kw_only=True):
    """What was drafted and accepted in answers to one kind of text, and how many times as fast it
    was as without."""

    name: str
    drafted: Count = 0
    accepted: Count = 0
    speed_up: Number | None = None


class Speculation(Record, frozen=True, kw_only=True):
    """What drafted tokens cost and gain on the machine that built the package; `pays` is None where
    random weights say nothing of what is accepted."""

    how: Literal["lookup"]
    ngram: Tokens | None = None
    decode_ms: Number | None = None
    draft_ms: Number | None = None
    steps: tuple[SpeculationStep, ...] = ()
    drafted: Tokens | None = None
    kinds: tuple[SpeculationKind, ...] = ()
    acceptance: Number | None = None
    speed_up: Number | None = None
    same: bool | None = None
    pays: bool | None = None

    def break_even(self) -> float | None:
        """That of the number of tokens that is drafted; where that is not known, the least."""
        known = [
            step.break_even
            for step in self.steps
            if step.break_even is not None and self.drafted in (None, step.drafted)
        ]
        return min(known, default=None)

    def sentence(self) -> str:
        """The verdict with its figure."""
        edge = self.break_even()
        needed = (
            "never pays" if edge is None else f"pays from {edge:.0%} of drafted tokens accepted"
        )
        if self.pays is None or self.acceptance is None or self.speed_up is None:
            return f"Prompt lookup {needed} on this machine."
        figures = f"{self.acceptance:.0%} are accepted, {self.speed_up:.2f} times as fast"
        if self.same is False:
            return "Prompt lookup is left out: it gives other tokens than plain decoding."
        if self.pays:
            return f"Prompt lookup of {self.drafted} tokens pays: {figures}; it {needed}."
        return f"Prompt lookup does not pay and is left out: {figures}; it {needed}."
