"""Where nothing fits: what is near, and the one change that would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log2
from typing import TYPE_CHECKING, Any, Literal

from packager.device.target import Target
from packager.errors import PackError
from packager.json_values import JsonObject
from packager.need.workload import Workload
from packager.predict.memory import KV_BITS
from packager.recipe import split_id
from packager.runtime import Runtime
from packager.select.candidate import Candidate
from packager.select.engine import candidates
from packager.select.speed_rules import QUERY_TOKENS

if TYPE_CHECKING:
    from packager.catalog import Variant

_MB = 10**6
_HARD = frozenset({"tuning", "modality", "language", "runtime"})
"""Rules that no change of a number mends."""
_SPEED = frozenset({"decode", "ttft", "documents", "query"})
_LOOK_AT = 24
"""Variants whose changes are tried, nearest first, and as many of the smallest: each try measures a
candidate again."""
_LEAST_IMAGE_TOKENS = 64
"""Smaller pictures are not proposed: 256 x 256 pixels in Qwen3-VL."""
_FINE_EACH, _COARSE_EACH = 2, 1
"""Recipes of a variant that are tried, of those with 4 bits per weight and more, and of the
others."""
_FAR = 3.0
"""Halvings beyond the least that is given up after which a miss is no near one any more."""
_WISH_PENALTY = 2.0
"""Halvings that giving up a score or a licence counts like: what the user wants comes after what
the device takes."""


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


@dataclass(frozen=True, slots=True)
class _Change:
    """One thing done differently; `cost` says how much is given up, in halvings."""

    text: str
    flag: str
    workload: Workload
    recipe: str
    target: Target
    cost: float = 0.0


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
            [one for one in by_variant[name] if one.coarse is coarse] for coarse in (False, True)
        )
        for candidate in (*fine[:_FINE_EACH], *rough[:_COARSE_EACH]):
            changes = sorted(
                _changes(candidate, target, workload, runtimes, larger),
                key=lambda change: change.cost,
            )
            for change in changes:
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
                            (change.cost + then.coarse, then.footprint.peak, name),
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
    change: _Change,
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


def _changes(
    candidate: Candidate,
    target: Target,
    workload: Workload,
    runtimes: Sequence[Runtime],
    larger: Sequence[tuple[Target, Workload]],
) -> Iterator[_Change]:
    rules = {reason.rule for reason in candidate.reasons}
    same = _Change("", "", workload, candidate.recipe.id, target)
    if rules <= {"memory", "context", "ttft"}:
        yield from _shorter(same, "context", least=max(512, workload.prompt + 1))
    if rules <= {"memory", "context", "ttft"} and workload.pictures:
        yield from _smaller_pictures(same)
    elif rules == {"ttft"}:
        yield from _shorter(same, "prompt", least=16)
    if rules == {"memory"}:
        yield from _smaller_cache(candidate, same)
    if rules <= {"memory", "storage", "artifact", "file", *_SPEED}:
        yield from _smaller_recipe(candidate, same, runtimes)
    if len(rules) == 1 and len(candidate.reasons) == 1:
        yield from _other_limit(candidate, same)
    if rules <= {"memory", "storage", *_SPEED}:
        room = max(1, target.device.all_available_bytes)
        for device, asked in larger:
            cost = 1 + log2(max(1.0, device.device.all_available_bytes / room))
            flag = f"--target {device.name}"
            yield replace(
                same,
                text=f"the device {device.name}",
                flag=flag,
                target=device,
                workload=asked,
                cost=cost,
            )


def _shorter(same: _Change, what: Literal["context", "prompt"], least: int) -> Iterator[_Change]:
    """Powers of two below the length, down to `least`."""
    now: int = getattr(same.workload, what)
    length = now
    while (length := 1 << ((length - 1).bit_length() - 1)) >= least:
        wish = (
            replace(same.workload, context=length)
            if what == "context"
            else replace(same.workload, prompt=length)
        )
        text = f"a {what} of {length} in place of {now}"
        yield replace(
            same, text=text, flag=f"--{what} {length}", workload=wish, cost=log2(now / length)
        )


def _smaller_pictures(same: _Change) -> Iterator[_Change]:
    """Powers of two below the most tokens of a picture; the question beside it stays as long."""
    now = same.workload.max_image_tokens or 0
    question = max(1, same.workload.prompt - now)
    length = now
    while (length := 1 << ((length - 1).bit_length() - 1)) >= _LEAST_IMAGE_TOKENS:
        prompt = length + question
        yield replace(
            same,
            text=f"pictures of {length} tokens in place of {now}",
            flag=f"--max-image-tokens {length} --prompt {prompt}",
            workload=replace(same.workload, max_image_tokens=length, prompt=prompt),
            # Half as many pixels a side show more than half of what there is to see.
            cost=log2(now / length) / 2,
        )


def _smaller_cache(candidate: Candidate, same: _Change) -> Iterator[_Change]:
    prefix, weights, _ = split_id(candidate.recipe.id)
    for kind in ("q8_0", "u8", "q4_0"):
        bits = KV_BITS[kind]
        if bits < candidate.recipe.kv_bits:
            recipe = f"{prefix}:{weights}/kv_{kind}"
            text = f"a {kind} cache in place of {candidate.recipe.kv}"
            # Eight bits of cache are hardly told from sixteen; with four the keys of some Qwen2
            # models lose their outliers.
            cost = log2(candidate.recipe.kv_bits / bits) / (2 if bits >= 8 else 1)
            yield replace(same, text=text, flag=f"--recipe {recipe}", recipe=recipe, cost=cost)


def _smaller_recipe(
    candidate: Candidate, same: _Change, runtimes: Sequence[Runtime]
) -> Iterator[_Change]:
    """The runtime's other recipes that make a smaller file."""
    shape = candidate.variant.shape
    assert shape is not None
    for runtime in runtimes:
        if runtime.name != candidate.runtime:
            continue
        for recipe in runtime.recipes():
            if (
                runtime.obstacle(shape, recipe) is None
                and 0 < (size := runtime.artifact_bytes(shape, recipe)) < candidate.artifact_bytes
            ):
                text = f"{recipe.id} in place of {candidate.recipe.id}"
                cost = log2(candidate.artifact_bytes / size)
                yield replace(
                    same, text=text, flag=f"--recipe {recipe.id}", recipe=recipe.id, cost=cost
                )


def _other_limit(candidate: Candidate, same: _Change) -> Iterator[_Change]:
    """The wish itself, set to what there is; only where it is the one rule that fails."""
    reason, wish = candidate.reasons[0], same.workload
    same = replace(same, cost=log2(reason.ratio) if isfinite(reason.ratio) else 0.0)
    match reason.rule:
        case "decode":
            rate = floor(candidate.forecast.decode_tps * 100) / 100
            if rate > 0:
                text = f"{rate:g} tok/s in place of {wish.min_decode_tps:g}"
                yield replace(
                    same,
                    text=text,
                    flag=f"--min-decode-tps {rate:g}",
                    workload=replace(wish, min_decode_tps=rate),
                )
        case "sound" if reason.has_value is not None:
            seconds = int(reason.has_value)
            yield replace(
                same,
                text=f"sound of {seconds} s in place of {wish.max_audio_seconds}",
                flag=f"--max-audio-seconds {seconds}",
                workload=replace(wish, max_audio_seconds=seconds),
            )
        # Too short for what the sound takes, and not too long for the model.
        case "context" if reason.has_value == wish.context and reason.needs_value is not None:
            length = 1 << int(reason.needs_value).bit_length()
            yield replace(
                same,
                text=f"a context of {length} in place of {wish.context}",
                flag=f"--context {length}",
                workload=replace(wish, context=length),
            )
        case "ttft":
            wait = ceil(candidate.forecast.ttft_ms)
            text = f"a first token after {wait} ms in place of {wish.max_ttft_ms:g}"
            yield replace(
                same,
                text=text,
                flag=f"--max-ttft-ms {wait}",
                workload=replace(wish, max_ttft_ms=float(wait)),
            )
        case "documents":
            rate = floor(candidate.forecast.documents_per_second(wish.prompt).value * 1000) / 1000
            if rate > 0:
                yield replace(
                    same,
                    text=f"{rate:g} documents a second in place of {wish.documents_per_second:g}",
                    flag=f"--documents-per-second {rate:g}",
                    workload=replace(wish, documents_per_second=rate),
                )
        case "query":
            wait = ceil(candidate.forecast.text_ms(QUERY_TOKENS).value)
            yield replace(
                same,
                text=f"a query's vector after {wait} ms in place of {wish.query_ms:g}",
                flag=f"--query-ms {wait}",
                workload=replace(wish, query_ms=float(wait)),
            )
        case "artifact":
            size = ceil(candidate.artifact_bytes / _MB)
            limit = replace(wish, max_artifact_bytes=size * _MB)
            yield replace(
                same,
                text=f"an artifact of {size} MB",
                flag=f"--max-artifact-mb {size}",
                workload=limit,
            )
        case "file" if reason.needs_value is not None:
            size = ceil(reason.needs_value / _MB)
            limit = replace(wish, max_file_bytes=size * _MB)
            yield replace(
                same,
                text=f"files of up to {size} MB",
                flag=f"--max-file-size {size}M",
                workload=limit,
            )
        case "memory" if wish.max_memory_bytes is not None:
            size = ceil(candidate.footprint.peak / _MB)
            limit = replace(wish, max_memory_bytes=size * _MB)
            yield replace(
                same,
                text=f"a memory limit of {size} MB",
                flag=f"--max-memory-mb {size}",
                workload=limit,
            )
        case "licence":
            licence = candidate.variant.license or "any"
            allowed = replace(wish, licenses=(licence,))
            text = (
                "accepting an unstated licence"
                if candidate.variant.license is None
                else f"accepting the licence {licence}"
            )
            yield replace(
                same, text=text, flag=f"--license {licence}", workload=allowed, cost=_WISH_PENALTY
            )
        case "score" if reason.has_value is not None:
            name, has = reason.needs.partition(" of ")[0], reason.has_value
            lower = replace(wish, min_scores={**wish.min_scores, name: has})
            text = f"{name} of {has:g} in place of {reason.needs_value:g}"
            yield replace(
                same,
                text=text,
                flag=f"--min-score '{name}={has:g}'",
                workload=lower,
                cost=same.cost + _WISH_PENALTY,
            )
