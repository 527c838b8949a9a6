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


class Parted(Record, frozen=True, kw_only=True):
    """The first token that is another one than without drafting: its place in the answer, how many
    nats likelier the model's own token is, how far rounding moves that, and whether it is a tie."""

    at: Count
    gap: Number | None = None
    rounding: Number = 0.0
    tie: bool = False


class SpeculationKind(Record, frozen=True, kw_only=True):
    """What was drafted and accepted in answers to one kind of text, how many times as fast it was
    as without, and where the two answers part."""

    name: str
    drafted: Count = 0
    accepted: Count = 0
    speed_up: Number | None = None
    parted: Parted | None = None


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


class Untried(Record, frozen=True, kw_only=True):
    """A way of drafting that was asked for among others and not measured, and why."""

    how: str
    why: str

    def sentence(self) -> str:
        """For people."""
        return f"{_WAYS.get(self.how, 'Drafting')} was not tried: {self.why}."


class Speculation(Record, frozen=True, kw_only=True):
    """What drafted tokens cost and gain on the machine that built the package; `pays` is None where
    random weights say nothing of what is accepted. `memory_bytes` is what drafting takes beside the
    model as predicted, `peak_memory_bytes` the most of the process that measured it, model and all.
    `others` is what was measured besides and is slower, `untried` what was not measured. `same` are
    answers that part nowhere, or only at ties."""

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
    peak_memory_bytes: Count | None = None
    draft: Draft | None = None
    others: tuple[OtherWay, ...] = ()
    untried: tuple[Untried, ...] = ()

    @classmethod
    def of_none(cls, untried: tuple[Untried, ...]) -> Speculation:
        """The record of a build in which no way could be tried."""
        return cls(how="lookup", pays=False, untried=untried)

    def break_even(self) -> float | None:
        """That of the number of tokens that is drafted; where that is not known, the least."""
        known = [
            step.break_even
            for step in self.steps
            if step.break_even is not None and self.drafted in (None, step.drafted)
        ]
        return min(known, default=None)

    def llama_server_options(self, folder: str = "") -> list[str]:
        """What llama-server is told of the way that pays, for the package in that folder; nothing
        where none does. Names of options: common/arg.cpp of the llama.cpp that llama-cpp-python
        0.3.36 brings."""
        if not self.pays or self.drafted is None:
            return []
        most = str(self.drafted)
        if self.how == "mtp":
            return ["--spec-type", "draft-mtp", "--spec-draft-n-max", most]
        if self.draft is not None:
            draft = f"{folder}/{self.draft.files[0]}" if folder else self.draft.files[0]
            return [
                *("--model-draft", draft),
                *("--spec-type", "draft-simple", "--spec-draft-n-max", most),
            ]
        return [
            *("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", str(self.ngram)),
            *("--spec-ngram-simple-size-m", most),
        ]

    @property
    def name(self) -> str:
        """The way of drafting, as the beginning of a sentence."""
        if self.draft is not None:
            return f"Drafting with {self.draft.variant} as {self.draft.recipe}"
        return _WAYS.get(self.how, "Drafting")

    def sentence(self) -> str:
        """The verdict with its figure, and what was not tried."""
        measured = [] if self.decode_ms is None and self.untried else [self._verdict()]
        return " ".join([*measured, *(row.sentence() for row in self.untried)])

    def _verdict(self) -> str:
        edge = self.break_even()
        needed = (
            "never pays" if edge is None else f"pays from {edge:.0%} of drafted tokens accepted"
        )
        if self.pays is None or self.acceptance is None or self.speed_up is None:
            left = "" if self.how == "lookup" else " It is left out: random weights accept nothing."
            return f"{self.name} {needed} on this machine.{left}"
        figures = f"{self.acceptance:.0%} are accepted, {self.speed_up:.2f} times as fast"
        if self.same is False:
            return (
                f"{self.name} is left out: it gives other tokens than plain decoding{self._far()}."
            )
        if self.pays:
            verdict = f"{self.name} pays with {self.drafted} tokens: {figures}; it {needed}."
        else:
            verdict = f"{self.name} does not pay and is left out: {figures}; it {needed}."
        return f"{verdict}{self._ties()}"

    def _far(self) -> str:
        """How far apart the tokens lie at which an answer parts without a tie."""
        gaps = [
            abs(kind.parted.gap)
            for kind in self.kinds
            if kind.parted and not kind.parted.tie and kind.parted.gap is not None
        ]
        return f", {max(gaps):.2g} nats apart" if gaps else ""

    def _ties(self) -> str:
        """What rounding did to the answers; nothing where they are the same to the token."""
        ties = [kind.parted for kind in self.kinds if kind.parted and kind.parted.tie]
        if not ties:
            return ""
        widest = max(ties, key=lambda tie: abs(tie.gap or 0.0))
        gap = abs(widest.gap or 0.0)
        return (
            f" In {len(ties)} of {len(self.kinds)} answers two tokens {gap:.2g} nats apart change "
            f"places: rounding moves them by {widest.rounding:.2g}."
        )
