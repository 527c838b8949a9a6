"""Where nothing fits: what is near, and the one change that would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.device.target import Target
from packager.errors import PackError
from packager.json_values import JsonObject
from packager.need.workload import Workload
from packager.runtime import Runtime
from packager.select.candidate import Candidate
from packager.select.changes import Change, changes
from packager.select.engine import candidates

if TYPE_CHECKING:
    from packager.catalog import Variant

_HARD = frozenset({"tuning", "modality", "language", "runtime"})
"""Rules that no change of a number mends."""
_LOOK_AT = 24
"""Variants whose changes are tried, nearest first, and as many of the smallest: each try measures a
candidate again."""
_FINE_EACH, _COARSE_EACH = 2, 1
"""Recipes of a variant that are tried, of those with 4 bits per weight and more, and of the
others."""
_FAR = 3.0
"""Halvings beyond the least that is given up after which a miss is no near one any more."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A rejected candidate, the one change that makes it pass (as a sentence and as a flag), and
    how it then stands."""

    candidate: Candidate
    change: str
    flag: str
    then: Candidate

    def __str__(self) -> str:
        lacks = "; ".join(map(str, self.candidate.reasons))
        return f"{self.candidate.label} ({lacks}) would fit with {self.change}: {self.flag}"

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "variant": self.candidate.variant.repo_id,
            "recipe": self.candidate.recipe.id,
            "reasons": self.candidate.as_dict()["reasons"],
            "change": self.change,
            "flag": self.flag,
            "then": self.then.as_dict(),
        }


def nearest_misses(
    target: Target,
    workload: Workload,
    judged: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    *,
    larger: Sequence[tuple[Target, Workload]] = (),
    available_bytes: int | None = None,
    named: bool = False,
    limit: int = 5,
) -> tuple[Miss, ...]:
    """For the nearest rejected variants the single change that gives up least and after which every
    rule is met, least first.

    Tried are a shorter context or prompt, a longer context where a sound leaves no room in it, a
    quantized cache, a smaller recipe, the limit that fails set to what there is (scores and
    licences last), and the devices in `larger`, each with what would be asked of it.
    """
    rejected = [
        one for one in judged if one.reasons and not _HARD & {reason.rule for reason in one.reasons}
    ]
    by_variant: dict[str, list[Candidate]] = {}
    for candidate in sorted(rejected, key=_distance):
        by_variant.setdefault(candidate.variant.repo_id, []).append(candidate)
    near = list(by_variant)[:_LOOK_AT]
    small = sorted(by_variant, key=lambda name: (by_variant[name][0].footprint.peak, name))[
        :_LOOK_AT
    ]
    best: list[tuple[tuple[float, int, str], Miss]] = []
    for name in dict.fromkeys((*near, *small)):
        ways = []
        fine, rough = (
            [one for one in by_variant[name] if bool(one.last) is last] for last in (False, True)
        )
        for candidate in (*fine[:_FINE_EACH], *rough[:_COARSE_EACH]):
            tried = sorted(
                changes(candidate, target, workload, runtimes, larger),
                key=lambda change: change.cost,
            )
            for change in tried:
                then = _again(
                    candidate.variant,
                    change,
                    runtimes,
                    available_bytes if change.target is target else None,
                    named,
                )
                if then is not None and then.passes:
                    ways.append(
                        (
                            (change.cost + bool(then.last), then.footprint.peak, name),
                            Miss(candidate, change.text, change.flag, then),
                        )
                    )
                    break
        best += sorted(ways, key=lambda pair: pair[0])[:1]
    best.sort(key=lambda pair: pair[0])
    return tuple(miss for (cost, *_), miss in best[:limit] if cost <= best[0][0][0] + _FAR)


def larger_than(
    target: Target, known: Iterable[Target], asked: Callable[[Target], Workload]
) -> Iterator[tuple[Target, Workload]]:
    """Those of the known targets with more memory, each with what would be asked of it; where that
    contradicts itself it is left out."""
    for other in known:
        if other.device.all_available_bytes > target.device.all_available_bytes:
            with suppress(PackError):
                yield other, asked(other)


def _distance(candidate: Candidate) -> tuple[Any, ...]:
    """The worst of its failed rules, as a ratio of needed to had; then the smaller candidate."""
    worst = max(reason.ratio for reason in candidate.reasons)
    return (
        worst,
        len(candidate.reasons),
        candidate.footprint.peak,
        candidate.rank,
        candidate.variant.repo_id,
        candidate.recipe.id,
    )


def _again(
    variant: Variant,
    change: Change,
    runtimes: Sequence[Runtime],
    available: int | None,
    named: bool,
) -> Candidate | None:
    try:
        judged = candidates(
            change.target,
            change.workload,
            (variant,),
            runtimes,
            recipe=change.recipe,
            available_bytes=available,
            named=named,
        )
    except PackError:
        # A device that the recipe's runtime does not serve, or a cache type the runtime does not
        # have: no way on there.
        return None
    return judged[0] if judged else None
