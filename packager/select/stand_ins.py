"""What stands for a score that nobody has published, so that a newer variant is not passed over for
a missing number.

Tried in this order, each said in a note and none shown as a score: the same benchmark in the
variant's other mode, less what the mode makes on average; another benchmark that asks the same, on
the wanted one's scale; and the best that is known so of an older variant that is no larger. Scales
are equated by mean and spread over the variants that have both (linear equating: Kolen and Brennan,
Test Equating, Scaling, and Linking, chapter 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum, sqrt

from packager.catalog import Variant, load, score_of, tuned_to_answer
from packager.catalog.benchmarks import scores_in
from packager.need.usecases import instead_of

_FEWEST = 4
"""Variants that two figures must have in common before one is turned into the other."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """A value on the benchmark's scale, and the sentence that says where it comes from."""

    value: float
    why: str


def published(variant: Variant, benchmark: str, modes: tuple[str, ...]) -> float | None:
    """The score in the first of the `modes` that there is one of; a score without a mode is that of
    a model without the switch."""
    its_own = "thinking" if variant.thinking == "always" else "non-thinking"
    return _published(variant.repo_id, its_own, benchmark, modes)


@cache
def _published(repo_id: str, its_own: str, benchmark: str, modes: tuple[str, ...]) -> float | None:
    given = scores_in(repo_id, benchmark)
    for mode in modes:
        wanted = (mode, None) if mode == its_own else (mode,)
        for stated in wanted:
            for score in given:
                if score.mode == stated:
                    return score.value
    return None


@cache
def stand_in(variant: Variant, benchmark: str, modes: tuple[str, ...]) -> StandIn | None:
    """What stands for the variant's missing score; None where nothing does.

    That is so for a base model, and for one that cannot answer in the mode that counts: one that
    always thinks where answers must come at once, one that never thinks where the thinking is what
    is wanted.
    """
    if variant.base or _cannot(variant, modes):
        return None
    return next(_own(variant, benchmark, modes), None) or _elder(variant, benchmark, modes)


def _cannot(variant: Variant, modes: tuple[str, ...]) -> bool:
    return modes == ({"always": "non-thinking", "never": "thinking"}.get(variant.thinking),)


def _own(variant: Variant, benchmark: str, modes: tuple[str, ...]) -> Iterator[StandIn]:
    """What its other figures say."""
    missing = f"{benchmark} is not published"
    other = tuple(mode for mode in ("non-thinking", "thinking") if mode not in modes)
    if other and (value := published(variant, benchmark, other)) is not None:
        shift = _mode_makes(benchmark, modes[0], other[0])
        yield StandIn(
            _score(value + shift),
            f"{missing} in {modes[0]} mode: {value:g} in {other[0]} mode is used instead, "
            f"{shift:+.1f} that the mode makes on average.",
        )
    for substitute in instead_of(benchmark):
        value = published(variant, substitute, (*modes, *other))
        line = None if value is None else _line(substitute, benchmark)
        if value is not None and line is not None:
            slope, intercept = line
            turned = _score(intercept + slope * value)
            yield StandIn(
                turned,
                f"{missing}: {value:g} in {substitute} is used instead, {turned:g} on its scale.",
            )


def _score(value: float) -> float:
    """What a benchmark can give: a share of its tasks."""
    return round(min(100.0, max(0.0, value)), 1)


@cache
def _mode_makes(benchmark: str, wanted: str, other: str) -> float:
    """The median of the differences between two modes, over the variants that have both; 0 with too
    few."""
    pairs = [
        (score_of(variant, benchmark, wanted), score_of(variant, benchmark, other))
        for variant in load()
        if not variant.base
    ]
    differences = [
        first.value - second.value
        for first, second in pairs
        if first is not None and second is not None
    ]
    return round(_median(differences), 1) if len(differences) >= _FEWEST else 0.0


@cache
def _line(source: str, wanted: str) -> tuple[float, float] | None:
    """Slope and intercept from one benchmark's scale to another's; None with too few variants in
    common."""
    pairs = [
        (one_value, other_value)
        for variant in load()
        if not variant.base
        for mode in ("non-thinking", "thinking")
        if (one_value := published(variant, source, (mode,))) is not None
        and (other_value := published(variant, wanted, (mode,))) is not None
    ]
    if len(pairs) < _FEWEST:
        return None
    before, after = zip(*pairs, strict=True)
    spread = _spread(before)
    if not spread:
        return None
    slope = _spread(after) / spread
    return slope, _mean(after) - slope * _mean(before)


# Not those of the module `statistics`: it brings fractions and decimals, a hundredth of `fit`.


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    """The standard deviation of the values as a whole population."""
    mean = _mean(values)
    return sqrt(_mean([(value - mean) ** 2 for value in values]))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return _mean(ordered[half : half + 1] if len(ordered) % 2 else ordered[half - 1 : half + 1])


def _elder(variant: Variant, benchmark: str, modes: tuple[str, ...]) -> StandIn | None:
    """The best of those that are older, no larger and made for the same; a figure of theirs that is
    not published either may be what their other figures say."""
    if variant.release_date is None or not variant.params_total:
        return None
    best: tuple[float, Variant] | None = None
    size = _size(variant)
    for older in tuned_to_answer(variant.kind):
        newer = older.release_date is None or older.release_date >= variant.release_date
        if newer or not 0 < _size(older) <= size:
            continue
        value = published(older, benchmark, modes)
        if value is None and not _cannot(older, modes):
            value = next((instead.value for instead in _own(older, benchmark, modes)), None)
        if value is not None and (best is None or value > best[0]):
            best = (value, older)
    if best is None:
        return None
    value, older = best
    how = (
        "no larger by the geometric mean of all and of active weights"
        if (older.params_total or 0) > variant.params_total
        else "no larger"
    )
    return StandIn(
        value,
        f"{benchmark} is not published: the {value:g} of {older.name} is used instead, which is "
        f"older and {how}.",
    )


def _size(variant: Variant) -> float:
    """What a variant knows and computes with: the geometric mean of all and of active weights."""
    total = variant.params_total or 0
    return sqrt(total * (variant.params_active or total))
