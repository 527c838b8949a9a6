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


class Draft(Record, frozen=True, kw_only=True):
    """The model that drafts: what it is, its files in the package where it pays, and the bytes that
    it takes in memory beside the model."""

    variant: str
    recipe: str
    files: tuple[str, ...] = ()
    artifact_bytes: Count = 0
    memory_bytes: Count = 0


class OtherWay(Record, frozen=True, kw_only=True):
    """A way of drafting that was measured and not taken."""

    how: str
    acceptance: Number | None = None
    speed_up: Number | None = None
    same: bool | None = None


_WAYS = {"lookup": "Prompt lookup", "mtp": "Drafting with the model's own heads"}


class Speculation(Record, frozen=True, kw_only=True):
    """What drafted tokens cost and gain on the machine that built the package; `pays` is None where
    random weights say nothing of what is accepted. `memory_bytes` is what drafting takes beside the
    model, `others` what was measured besides and is slower."""

    how: Literal["lookup", "draft", "mtp"]
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
    memory_bytes: Count | None = None
    draft: Draft | None = None
    others: tuple[OtherWay, ...] = ()

    def break_even(self) -> float | None:
        """That of the number of tokens that is drafted; where that is not known, the least."""
        known = [
            step.break_even
            for step in self.steps
            if step.break_even is not None and self.drafted in (None, step.drafted)
        ]
        return min(known, default=None)

    @property
    def name(self) -> str:
        """The way of drafting, as the beginning of a sentence."""
        if self.draft is not None:
            return f"Drafting with {self.draft.variant} as {self.draft.recipe}"
        return _WAYS.get(self.how, "Drafting")

    def sentence(self) -> str:
        """The verdict with its figure."""
        edge = self.break_even()
        needed = (
            "never pays" if edge is None else f"pays from {edge:.0%} of drafted tokens accepted"
        )
        if self.pays is None or self.acceptance is None or self.speed_up is None:
            left = "" if self.how == "lookup" else " It is left out: random weights accept nothing."
            return f"{self.name} {needed} on this machine.{left}"
        figures = f"{self.acceptance:.0%} are accepted, {self.speed_up:.2f} times as fast"
        if self.same is False:
            return f"{self.name} is left out: it gives other tokens than plain decoding."
        if self.pays:
            return f"{self.name} pays with {self.drafted} tokens: {figures}; it {needed}."
        return f"{self.name} does not pay and is left out: {figures}; it {needed}."
