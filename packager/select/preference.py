"""Which of the candidates that pass is the best: smallest, quality, speed or balanced; ties always
fall the same way.

* smallest: a target names its runtimes best first, so the first one in which anything passes is
taken. In it each variant stands with its first passing recipe (the target's own recipes in their
order, then the others from the least peak memory up, those under 4 bits per weight last), and the
least peak memory wins.
* quality: the highest mean of the use case's scores less what the quantization is known to take, in
half points; what fills more than nine tenths of the memory, or has to leave layers beside the GPU,
stands behind what leaves room. Among equals the newer variant, then the target's first runtime and
the smaller recipe, unless a better one is no larger. Variants without a score stand behind those
with one: those of the newer family first, and in a family the larger.
* speed: the highest forecast decode rate; of embedders and rerankers the rate at which they read.
* cost: the least time that the machine takes for a usual answer, of all that it gives at once: the
prompt, what is thought before, and the answer. At one price an hour that is the cheapest answer.
* balanced: the knee of the Pareto front of quality, decode rate and peak memory, each variant in
its first passing recipe as above and with at least half of the best quality: of all that no other
one beats on every count, the one nearest to the best of all three, quality on its own scale and the
two others on logarithmic ones, each stretched to 0..1 over the front.

Ties: peak memory, parameters, place of runtime and recipe in the target, the later release, name of
the variant, id of the recipe. A coarse recipe, one under 4 bits per weight, stands behind all
others: there the loss grows past what a larger variant gains (KL divergence to f16 .031 at Q4_K_M,
.102 at Q3_K_M, .445 at Q2_K: llama.cpp's quantization table for Llama-3-8B). So does a recipe that
its runtime holds back for the task (packager.runtime.HoldsBack).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import log, sqrt
from typing import TYPE_CHECKING, Any

from packager.need.workload import Preference
from packager.select.candidate import Candidate

if TYPE_CHECKING:
    from packager.catalog import Variant

LOSSLESS_BITS = 7.5
_LOSSES = {16: 0.0, 8: 0.0, 6: 0.1, 5: 0.4, 4: 1.5, 3: 4.0, 2: 15.0}
"""Points lost by bits. Qwen's own tables (QwenLM/Qwen3,
docs/source/getting_started/quantization_benchmark.rst and the quantization page of Qwen2.5): Int8
within a tenth of BF16, Int4 one to two points lower; between and below them in the order of the KL
divergences in llama.cpp's table (.0055 at 6 bits, .0108 at 5, .0313 at 4, .102 at 3, .445 at 2)."""
_LITTLE = 1.0


def tie(candidate: Candidate) -> tuple[Any, ...]:
    """What decides where nothing else does."""
    variant = candidate.variant
    return (
        candidate.footprint.peak,
        variant.params_total or 0,
        candidate.rank,
        _age(variant),
        variant.repo_id,
        candidate.recipe.id,
    )


def _age(variant: Variant) -> int:
    """The later a variant was released the less; without a date it stands behind all that have
    one."""
    # Of some only year and month are known: 202608 would stand for a day in the year 20.
    return -int((variant.release_date or "").replace("-", "").ljust(8, "0"))


def ordered(passing: Sequence[Candidate], prefer: Preference) -> list[Candidate]:
    """The candidates that pass, best first: those that may miss a limit behind all that do not."""
    sure, others = (
        [candidate for candidate in passing if candidate.sure is wanted] for wanted in (True, False)
    )
    return [*_ordered(sure, prefer), *_ordered(others, prefer)]


def _ordered(passing: Sequence[Candidate], prefer: Preference) -> list[Candidate]:
    if prefer == "smallest":
        return _smallest(passing)
    if prefer == "balanced":
        return _balanced(passing)
    if prefer == "quality":
        behind = _dominated(passing)
        ages = _family_ages(passing)
        return sorted(
            passing,
            key=lambda candidate: _by_quality(
                candidate, id(candidate) in behind, ages[candidate.variant.family]
            ),
        )
    return sorted(passing, key=_by_speed if prefer == "speed" else _by_cost)


_NO_LARGER = 1.01
"""A recipe that takes up to so many times the memory of another is no larger."""


def _dominated(passing: Sequence[Candidate]) -> set[int]:
    """Candidates beside which the same variant is there in a recipe that its runtime calls better
    and that is no larger, as Q5_K_S is beside Q5_0; the target's own recipes stand, and what loses
    nothing."""
    groups: dict[tuple[str, str, str], list[Candidate]] = {}
    for candidate in passing:
        key = (candidate.variant.repo_id, candidate.runtime, candidate.recipe.kv)
        groups.setdefault(key, []).append(candidate)
    return {
        id(candidate)
        for group in groups.values()
        for candidate in group
        if loss(candidate) > 0
        and any(
            other.order < candidate.order
            and other.rank <= candidate.rank
            and other.footprint.peak <= _NO_LARGER * candidate.footprint.peak
            and other.crowded <= candidate.crowded
            for other in group
        )
    }


def _family_ages(passing: Sequence[Candidate]) -> dict[str, int]:
    """The age of each family's latest variant among them; the sizes of a family may be weeks
    apart."""
    ages: dict[str, int] = {}
    for candidate in passing:
        variant = candidate.variant
        ages[variant.family] = min(ages.get(variant.family, 0), _age(variant))
    return ages


def _by_quality(candidate: Candidate, dominated: bool, family_age: int) -> tuple[Any, ...]:
    # Without a score a variant cannot be compared: it stands behind all that can. Size tells
    # something within a family, but little between families that are years apart.
    unknown = candidate.quality is None
    size = -(candidate.variant.params_total or 0) if unknown else 0
    # Half points: less does not tell two of them apart, and the smaller one then leaves more room.
    reached = (
        0.0 if candidate.quality is None else round(2 * (candidate.quality - loss(candidate))) / 2
    )
    lost = loss(candidate) > _LITTLE if unknown else False
    age = _age(candidate.variant)
    return (
        candidate.last,
        candidate.crowded,
        unknown,
        -reached,
        family_age if unknown else 0,
        size,
        lost,
        age,
        candidate.rank[0],
        dominated,
        tie(candidate),
    )


def loss(candidate: Candidate) -> float:
    """Points of a benchmark that the recipe's quantization takes, by its grade; 0 where it has
    none."""
    if candidate.recipe.grade is None:
        if candidate.bits_per_weight >= LOSSLESS_BITS:
            return 0.0
        return _LOSSES[4 if candidate.bits_per_weight < 6 else 6]
    return _LOSSES[min(16, int(candidate.recipe.grade.partition("-")[0]))]


def _by_speed(candidate: Candidate) -> tuple[Any, ...]:
    return (candidate.last, -_rate(candidate), tie(candidate))


def _by_cost(candidate: Candidate) -> tuple[Any, ...]:
    return (candidate.last, round(candidate.machine_seconds, 3), tie(candidate))


def _rate(candidate: Candidate) -> float:
    """Tokens per second as far as they tell two candidates apart."""
    return round(_pace(candidate), 1)


def _pace(candidate: Candidate) -> float:
    """The rate of answers, or that at which texts are read where a vector or score is all that
    comes of them."""
    shape, forecast = candidate.variant.shape, candidate.forecast
    answers = shape is None or shape.task == "generate"
    return forecast.decode_tps if answers else forecast.prefill_tps


def undercut(best: Candidate, judged: Sequence[Candidate], prefer: Preference) -> str:
    """What the chosen one is the best of, where another that passes goes further: ", coarse recipes
    aside,"; else an empty text."""
    # What may miss a limit is compared with what may, too.
    others = [
        other for other in judged if other.passes and other is not best and other.sure >= best.sure
    ]
    if prefer == "smallest":
        less = [
            other
            for other in others
            if other.variant != best.variant and other.footprint.peak < best.footprint.peak
        ]
        if any(other.rank[0] > best.rank[0] for other in less):
            return f" with {best.runtime}, which the target prefers,"
        return ", each in the first of its recipes that passes," if less else ""
    back = [other for other in others if other.last and not best.last]
    if prefer == "quality":
        beaten = any((other.quality or 0) > (best.quality or 0) for other in back)
    else:
        beaten = prefer == "speed" and any(_rate(other) > _rate(best) for other in back)
        beaten |= prefer == "cost" and any(
            other.machine_seconds < best.machine_seconds for other in back
        )
    if not beaten:
        return ""
    coarse = any(other.coarse for other in back)
    return ", coarse recipes aside," if coarse else ", recipes that are held back aside,"


def recipe_order(candidate: Candidate) -> tuple[Any, ...]:
    """The order in which the recipes of one variant are tried: the target's own, small ones, coarse
    ones (largest first)."""
    _, place = candidate.rank
    size = candidate.footprint.peak
    return (place, candidate.last, -size if candidate.last else size, candidate.recipe.id)


def _smallest(passing: Sequence[Candidate]) -> list[Candidate]:
    """Runtime by runtime: first each variant in its first recipe, then the other recipes."""
    first = {
        id(candidate)
        for candidate in _first_forms(passing, lambda one: (one.rank[0], one.variant.repo_id))
    }
    return sorted(passing, key=lambda one: (one.last, one.rank[0], id(one) not in first, tie(one)))


def _first_forms(
    passing: Sequence[Candidate], group: Callable[[Candidate], Hashable]
) -> list[Candidate]:
    """Of each group the candidate that is tried first."""
    first: dict[Hashable, Candidate] = {}
    for candidate in sorted(passing, key=lambda one: (one.last, one.rank[0], recipe_order(one))):
        first.setdefault(group(candidate), candidate)
    return list(first.values())


def _balanced(passing: Sequence[Candidate]) -> list[Candidate]:
    forms = _first_forms(passing, lambda form: form.variant.repo_id)
    best = max(
        (form.quality for form in forms if form.quality is not None and not form.last),
        default=0.0,
    )
    # What gives up more than half of the best quality is no balance, however small and fast it is.
    fine = [form for form in forms if not form.last] or forms
    pool = [form for form in fine if form.quality is not None and form.quality >= best / 2] or fine
    axes = {id(candidate): _axes(candidate) for candidate in passing}
    front = pareto_front([axes[id(candidate)] for candidate in pool])
    if not front:
        return []
    on_front = set(front)
    distances = dict(zip(axes, knee(list(axes.values()), front), strict=True))
    members = {id(candidate) for candidate in pool if axes[id(candidate)] in on_front}

    def key(candidate: Candidate) -> tuple[Any, ...]:
        distance = round(distances[id(candidate)], 9)
        return (
            id(candidate) not in members,
            candidate.last,
            candidate.quality is None,
            distance,
            tie(candidate),
        )

    return sorted(passing, key=key)


def _axes(candidate: Candidate) -> tuple[float, float, float]:
    """Quality, decode rate and saving of memory, each the more the better."""
    return (
        candidate.quality or 0.0,
        log(max(_pace(candidate), 1e-9)),
        -log(max(candidate.footprint.peak, 1)),
    )


def knee(
    points: Sequence[tuple[float, float, float]], front: Sequence[tuple[float, float, float]]
) -> list[float]:
    """Of each point the distance to the best of every axis, each axis stretched to 0..1 over the
    front."""
    low = [min(column) for column in zip(*front, strict=True)]
    high = [max(column) for column in zip(*front, strict=True)]
    # A point off the front may lie beyond the ends of a scale.
    return [
        sqrt(
            sum(
                ((top - value) / (top - bottom)) ** 2
                for value, bottom, top in zip(point, low, high, strict=True)
                if top > bottom
            )
        )
        for point in points
    ]


def pareto_front(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """The points that no other point beats: at least as good on all axes and better on one."""
    front: list[tuple[float, float, float]] = []
    # In falling order a point can only be beaten by one that stands before it.
    for point in sorted(set(points), reverse=True):
        if not any(
            all(ours <= theirs for ours, theirs in zip(point, other, strict=True))
            for other in front
        ):
            front.append(point)
    return front
