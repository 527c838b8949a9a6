"""Where nothing fits: what is near, and the one change that would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from packager.device import Target
from packager.errors import PackError
from packager.recipe import split_id
from packager.runtime import Runtime
from packager.select.candidate import Candidate
from packager.select.engine import candidates
from packager.workload import Workload

if TYPE_CHECKING:
    from packager.catalog import Variant

_MB = 10**6
_HARD = frozenset({"tuning", "modality", "runtime"})
"""Rules that no change of a number mends."""
_LOOK_AT = 12
"""Candidates whose changes are tried: each try measures a candidate again."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A rejected candidate, the one change that makes it pass (as a sentence and as a flag), and how it then stands."""

    candidate: Candidate
    change: str
    flag: str
    then: Candidate

    def __str__(self) -> str:
        lacks = "; ".join(map(str, self.candidate.reasons))
        return f"{self.candidate.label} ({lacks}) would fit with {self.change}: {self.flag}"

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "variant": self.candidate.variant.repo_id,
            "recipe": self.candidate.recipe.id,
            "reasons": self.candidate.as_dict()["reasons"],
            "change": self.change,
            "flag": self.flag,
            "then": self.then.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class _Change:
    """One thing done differently."""

    text: str
    flag: str
    workload: Workload
    recipe: str
    target: Target


def nearest_misses(
    target: Target,
    workload: Workload,
    found: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    *,
    larger: Sequence[Target] = (),
    available_bytes: int | None = None,
    named: bool = False,
    limit: int = 5,
) -> tuple[Miss, ...]:
    """For the nearest rejected candidates, one per variant, the first single change after which every rule is met.

    Tried in this order: a shorter context, a quantized cache, a smaller recipe, a lower rate or longer wait, a larger
    limit of the user's own, a lower score, and last the next larger device of `larger`.
    """
    misses: list[Miss] = []
    tried: dict[str, int] = {}
    near = sorted((one for one in found if one.reasons and not _HARD & {reason.rule for reason in one.reasons}), key=_distance)
    for candidate in near[: _LOOK_AT * limit]:
        name = candidate.variant.repo_id
        if len(misses) >= limit:
            break
        if any(miss.candidate.variant.repo_id == name for miss in misses) or tried.get(name, 0) >= 3 or len(tried) > _LOOK_AT:
            continue
        tried[name] = tried.get(name, 0) + 1
        for change in _changes(candidate, target, workload, runtimes, larger):
            memory = available_bytes if change.target is target else None
            then = _again(candidate.variant, change, runtimes, memory, named)
            if then is not None and then.passes:
                misses.append(Miss(candidate, change.text, change.flag, then))
                break
    return tuple(misses)


def _distance(candidate: Candidate) -> tuple[Any, ...]:
    """The worst of its failed rules, as a ratio of needed to had; then the smaller candidate."""
    worst = max(reason.ratio for reason in candidate.reasons)
    return (worst, len(candidate.reasons), candidate.footprint.peak, candidate.rank, candidate.variant.repo_id, candidate.recipe.id)


def _again(variant: Variant, change: _Change, runtimes: Sequence[Runtime], available: int | None, named: bool) -> Candidate | None:
    try:
        found = candidates(
            change.target, change.workload, (variant,), runtimes, recipe=change.recipe, available_bytes=available, named=named
        )
    except PackError:
        # A device that the recipe's runtime does not serve, or a cache type the runtime does not have: no way on there.
        return None
    return found[0] if found else None


def _changes(
    candidate: Candidate, target: Target, workload: Workload, runtimes: Sequence[Runtime], larger: Sequence[Target]
) -> Iterator[_Change]:
    rules = {reason.rule for reason in candidate.reasons}
    same = _Change("", "", workload, candidate.recipe.id, target)
    if rules & {"memory", "context", "ttft"}:
        yield from _shorter_context(candidate, same)
    if "memory" in rules:
        yield from _smaller_cache(candidate, same)
    if rules & {"memory", "storage", "artifact", "decode"}:
        yield from _smaller_recipe(candidate, same, runtimes)
    yield from _other_limit(candidate, same)
    if rules & {"memory", "storage", "decode", "ttft"}:
        for device in sorted(larger, key=lambda one: (one.device.available_bytes, one.name)):
            yield replace(same, text=f"the device {device.name}", flag=f"--target {device.name}", target=device)


def _shorter_context(candidate: Candidate, same: _Change) -> Iterator[_Change]:
    """Halves, down to the shortest context in which a conversation is one."""
    length = same.workload.context
    while length // 2 >= 512:
        length = 1 << (length - 1).bit_length() - 1
        prompt = min(same.workload.prompt, length // 2)
        text = f"a context of {length} in place of {same.workload.context}"
        yield replace(same, text=text, flag=f"--context {length}", workload=replace(same.workload, context=length, prompt=prompt))


def _smaller_cache(candidate: Candidate, same: _Change) -> Iterator[_Change]:
    prefix, weights, _ = split_id(candidate.recipe.id)
    for kind, bits in (("q8_0", 8.5), ("u8", 8.5), ("q4_0", 4.5)):
        if bits < candidate.recipe.kv_bits:
            recipe = f"{prefix}:{weights}/kv_{kind}"
            yield replace(same, text=f"a {kind} cache in place of {candidate.recipe.kv}", flag=f"--recipe {recipe}", recipe=recipe)


def _smaller_recipe(candidate: Candidate, same: _Change, runtimes: Sequence[Runtime]) -> Iterator[_Change]:
    """The runtime's other recipes that make a smaller file, the largest of them first."""
    shape = candidate.variant.shape
    assert shape is not None
    for runtime in runtimes:
        if runtime.name != candidate.runtime:
            continue
        sizes = [
            (runtime.artifact_bytes(shape, recipe), recipe.id) for recipe in runtime.recipes() if runtime.obstacle(shape, recipe) is None
        ]
        for _, recipe in sorted((pair for pair in sizes if pair[0] < candidate.artifact_bytes), reverse=True):
            yield replace(same, text=f"{recipe} in place of {candidate.recipe.id}", flag=f"--recipe {recipe}", recipe=recipe)


def _other_limit(candidate: Candidate, same: _Change) -> Iterator[_Change]:
    """The wish itself, set to what there is; only where it is the one rule that fails."""
    if len({reason.rule for reason in candidate.reasons}) > 1:
        return
    reason, wish = candidate.reasons[0], same.workload
    match reason.rule:
        case "decode":
            rate = floor(candidate.forecast.decode_tps * 100) / 100
            if rate > 0:
                yield replace(
                    same,
                    text=f"{rate:g} tok/s in place of {wish.min_decode_tps:g}",
                    flag=f"--min-decode-tps {rate:g}",
                    workload=replace(wish, min_decode_tps=rate),
                )
        case "ttft":
            wait = ceil(candidate.forecast.ttft_ms)
            yield replace(
                same,
                text=f"a first token after {wait} ms in place of {wish.max_ttft_ms:g}",
                flag=f"--max-ttft-ms {wait}",
                workload=replace(wish, max_ttft_ms=float(wait)),
            )
        case "artifact":
            size = ceil(candidate.artifact_bytes / _MB)
            yield replace(
                same,
                text=f"an artifact of {size} MB",
                flag=f"--max-artifact-mb {size}",
                workload=replace(wish, max_artifact_bytes=size * _MB),
            )
        case "memory" if wish.max_memory_bytes is not None:
            size = ceil(candidate.footprint.peak / _MB)
            yield replace(
                same,
                text=f"a memory limit of {size} MB",
                flag=f"--max-memory-mb {size}",
                workload=replace(wish, max_memory_bytes=size * _MB),
            )
        case "licence" if candidate.variant.license is not None:
            licence = candidate.variant.license
            yield replace(
                same, text=f"accepting the licence {licence}", flag=f"--license {licence}", workload=replace(wish, licenses=(licence,))
            )
        case "score" if len(candidate.reasons) == 1 and reason.has_value is not None:
            name = reason.needs.partition(" of ")[0]
            scores = {**wish.min_scores, name: reason.has_value}
            yield replace(
                same,
                text=f"{name} of {reason.has_value:g} in place of {reason.needs_value:g}",
                flag=f"--min-score {name!r}={reason.has_value:g}",
                workload=replace(wish, min_scores=scores),
            )
