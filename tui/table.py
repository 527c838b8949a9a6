"""The table of candidates without a screen: its rows, the columns that sort it, the words that
filter it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.units import human_bytes, human_count

if TYPE_CHECKING:
    from packager.select import Candidate

NONE = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its width in cells, how a candidate reads in it, and what it is sorted by (None
    stands last)."""

    key: str
    title: str
    width: int
    text: Callable[[Candidate], str]
    value: Callable[[Candidate], Any]
    right: bool = True


def task(candidate: Candidate) -> str:
    """What it gives: text, vectors or scores (packager.shape.TASKS)."""
    shape = candidate.variant.shape
    return "generate" if shape is None else shape.task


def speed(candidate: Candidate) -> float:
    """Tokens per second that matter: those of an answer, or where there is none those that are
    read."""
    forecast = candidate.forecast
    return forecast.decode_tps if task(candidate) == "generate" else forecast.prefill_tps


def _sized(candidate: Candidate, value: float, text: str) -> str:
    return text if candidate.sized else NONE


COLUMNS: tuple[Column, ...] = (
    Column(
        "variant",
        "variant",
        26,
        lambda one: one.variant.name,
        lambda one: one.variant.name.casefold(),
        right=False,
    ),
    Column(
        "recipe", "recipe", 24, lambda one: one.recipe.id, lambda one: one.recipe.id, right=False
    ),
    Column(
        "params",
        "params",
        6,
        lambda one: human_count(one.variant.params_total) if one.variant.params_total else NONE,
        lambda one: one.variant.params_total,
    ),
    Column(
        "memory",
        "memory",
        8,
        lambda one: _sized(one, one.footprint.peak, human_bytes(one.footprint.peak)),
        lambda one: one.footprint.peak if one.sized else None,
    ),
    Column(
        "decode",
        "tok/s",
        6,
        lambda one: _sized(one, speed(one), rate(speed(one))),
        lambda one: -speed(one) if one.sized else None,
    ),
    Column(
        "ttft",
        "first tok",
        9,
        lambda one: _sized(one, one.forecast.ttft_ms, wait(one.forecast.ttft_ms)),
        lambda one: one.forecast.ttft_ms if one.sized else None,
    ),
    Column(
        "artifact",
        "files",
        8,
        lambda one: _sized(one, one.artifact_bytes, human_bytes(one.artifact_bytes)),
        lambda one: one.artifact_bytes if one.sized else None,
    ),
    Column(
        "quality",
        "score",
        6,
        lambda one: f"{one.quality:.1f}" if one.quality is not None else NONE,
        lambda one: -one.quality if one.quality is not None else None,
    ),
)
WITHOUT_ANSWER = {"decode": "read/s", "ttft": "one text"}
"""Titles of columns where a model gives vectors or scores: tokens read per second, and the wait for
one text or pair."""
KEYS = ("rank", *(column.key for column in COLUMNS))


def shortened(text: str, cells: int) -> str:
    """A name in so many cells: cut in the middle, as what tells two names apart stands at their
    ends."""
    if len(text) <= cells:
        return text
    tail = (cells - 1) // 2
    return f"{text[: cells - 1 - tail]}…{text[len(text) - tail :]}"


def rate(value: float) -> str:
    """Tokens per second in at most five cells: `128`, `28.1`, `0.52`."""
    digits = sum(value < bound for bound in (10, 100))
    return f"{value:.{digits}f}"


def wait(milliseconds: float) -> str:
    """A wait as people read it: `320 ms`, `4.2 s`, `3 min`."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"


@dataclass(frozen=True, slots=True)
class View:
    """Which rows are shown and in which order; `sort` is a key of KEYS, `rank` the core's own
    order.

    With `grouped` a variant stands once, in the first of its combinations that the order and the
    filter leave; the variants in `unfolded` (repository ids) stand in all of theirs, directly below
    each other.
    """

    words: str = ""
    sort: str = "rank"
    reverse: bool = False
    rejected: bool = True
    grouped: bool = True
    unfolded: frozenset[str] = frozenset()

    def rows(self, candidates: Sequence[Candidate], haystacks: Sequence[str]) -> list[int]:
        """Indices into `candidates`; `haystacks` are their `haystack` texts, made once."""
        ordered = self._ordered(candidates, haystacks)
        if not self.grouped:
            return ordered
        groups = by_variant(candidates, ordered)
        return [
            row
            for name, rows in groups.items()
            for row in (rows if name in self.unfolded else rows[:1])
        ]

    def more(self, candidates: Sequence[Candidate], haystacks: Sequence[str]) -> dict[str, int]:
        """How many combinations of each variant the filter leaves; empty where nothing is
        grouped."""
        if not self.grouped:
            return {}
        return {
            name: len(rows)
            for name, rows in by_variant(candidates, self._ordered(candidates, haystacks)).items()
        }

    def _ordered(self, candidates: Sequence[Candidate], haystacks: Sequence[str]) -> list[int]:
        """All that the filter leaves, in order."""
        wanted = self.words.casefold().split()
        kept = [
            index
            for index, text in enumerate(haystacks)
            if all(word in text for word in wanted) and (self.rejected or candidates[index].passes)
        ]
        if self.sort == "rank":
            return kept[::-1] if self.reverse else kept
        value = next(column.value for column in COLUMNS if column.key == self.sort)
        known = [(value(candidates[index]), index) for index in kept]
        unknown = [index for found, index in known if found is None]
        # The core's order decides between equals, in both directions.
        ordered = sorted(
            (pair for pair in known if pair[0] is not None),
            key=lambda pair: pair[0],
            reverse=self.reverse,
        )
        return [index for _, index in ordered] + unknown


def by_variant(candidates: Sequence[Candidate], rows: Sequence[int]) -> dict[str, list[int]]:
    """The rows of each variant, variants in the order in which they first come."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(candidates[row].variant.repo_id, []).append(row)
    return groups


def haystack(candidate: Candidate) -> str:
    """What the filter looks in: names, family, licence, verdict, the rules that failed."""
    variant = candidate.variant
    parts = [
        variant.repo_id,
        candidate.recipe.id,
        candidate.runtime,
        variant.kind,
        variant.license or "",
        candidate.verdict,
    ]
    return " ".join([*parts, *(reason.rule for reason in candidate.reasons)]).casefold()
