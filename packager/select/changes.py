"""The single changes after which a rejected candidate may fit, and what each gives up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log2
from typing import Any, Literal

from packager.device.target import Target
from packager.errors import PackError
from packager.need.workload import Workload
from packager.predict.memory import KV_BITS
from packager.recipe import Recipe, split_id
from packager.runtime import Runtime
from packager.select.candidate import Candidate, Reason
from packager.select.speed_rules import QUERY_TOKENS
from packager.shape import Shape
from packager.units import human_rate

_MB = 10**6
_SPEED = frozenset({"decode", "ttft", "documents", "query"})
_LEAST_IMAGE_TOKENS = 64
"""Smaller pictures are not proposed: 256 x 256 pixels in Qwen3-VL."""
_WISH_PENALTY = 2.0
"""Halvings that giving up a score or a licence counts like: what the user wants comes after what
the device takes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing done differently; `cost` says how much is given up, in halvings."""

    text: str
    flag: str
    workload: Workload
    recipe: str
    target: Target
    cost: float = 0.0


def changes(
    candidate: Candidate,
    target: Target,
    workload: Workload,
    runtimes: Sequence[Runtime],
    larger: Sequence[tuple[Target, Workload]],
) -> Iterator[Change]:
    """Everything that may mend the rules that a candidate fails, each change by itself."""
    rules = {reason.rule for reason in candidate.reasons}
    same = Change("", "", workload, candidate.recipe.id, target)
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
        yield from _lower_limit(candidate, same)
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


def _shorter(same: Change, what: Literal["context", "prompt"], least: int) -> Iterator[Change]:
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


def _smaller_pictures(same: Change) -> Iterator[Change]:
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


def _smaller_cache(candidate: Candidate, same: Change) -> Iterator[Change]:
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
    candidate: Candidate, same: Change, runtimes: Sequence[Runtime]
) -> Iterator[Change]:
    """The runtime's other recipes that make a smaller file."""
    shape = candidate.variant.shape
    assert shape is not None
    for runtime in runtimes:
        if runtime.name != candidate.runtime:
            continue
        for recipe in runtime.recipes():
            size = _size(runtime, shape, recipe)
            if 0 < size < candidate.artifact_bytes:
                text = f"{recipe.id} in place of {candidate.recipe.id}"
                cost = log2(candidate.artifact_bytes / size)
                yield replace(
                    same, text=text, flag=f"--recipe {recipe.id}", recipe=recipe.id, cost=cost
                )


def _size(runtime: Runtime, shape: Shape, recipe: Recipe) -> int:
    """Bytes of the file; 0 where it cannot be built or sized."""
    try:
        obstacle = runtime.obstacle(shape, recipe)
        return 0 if obstacle is not None else runtime.artifact_bytes(shape, recipe)
    except PackError:
        return 0


def _lower_limit(candidate: Candidate, same: Change) -> Iterator[Change]:
    """The wish itself, set to what there is; only where it is the one rule that fails."""
    reason = candidate.reasons[0]
    same = replace(same, cost=log2(reason.ratio) if isfinite(reason.ratio) else 0.0)
    for lowered in (_lower_speed, _more_room, _other_input, _other_wish):
        yield from lowered(candidate, reason, same)


def _asking(same: Change, text: str, flag: str, **wish: Any) -> Change:
    """The change that asks for something else in these fields of the workload."""
    return replace(same, text=text, flag=flag, workload=replace(same.workload, **wish))


def _lower_speed(candidate: Candidate, reason: Reason, same: Change) -> Iterator[Change]:
    """A lower rate, or a longer wait."""
    wish, forecast = same.workload, candidate.forecast
    match reason.rule:
        case "decode":
            rate = floor(forecast.decode_tps * 100) / 100
            text = f"{rate:g} tok/s in place of {human_rate(wish.min_decode_tps or 0, 6)}"
            if rate > 0:
                yield _asking(same, text, f"--min-decode-tps {rate:g}", min_decode_tps=rate)
        case "documents":
            rate = floor(forecast.documents_per_second(wish.prompt).value * 1000) / 1000
            asked = wish.documents_per_second or 0
            text = f"{rate:g} documents a second in place of {human_rate(asked, 6)}"
            flag = f"--documents-per-second {rate:g}"
            if rate > 0:
                yield _asking(same, text, flag, documents_per_second=rate)
        case "ttft":
            wait = ceil(forecast.ttft_ms)
            text = f"a first token after {wait} ms in place of {wish.max_ttft_ms or 0:.0f}"
            yield _asking(same, text, f"--max-ttft-ms {wait}", max_ttft_ms=float(wait))
        case "query":
            wait = ceil(forecast.text_ms(QUERY_TOKENS).value)
            text = (
                f"a query's vector after {wait} ms in place of {human_rate(wish.query_ms or 0, 6)}"
            )
            yield _asking(same, text, f"--query-ms {wait}", query_ms=float(wait))


def _more_room(candidate: Candidate, reason: Reason, same: Change) -> Iterator[Change]:
    """A higher limit on the files or on the memory."""
    match reason.rule:
        case "artifact":
            size = ceil(candidate.artifact_bytes / _MB)
            flag = f"--max-artifact-mb {size}"
            yield _asking(same, f"an artifact of {size} MB", flag, max_artifact_bytes=size * _MB)
        case "file" if reason.needs_value is not None:
            size = ceil(reason.needs_value / _MB)
            flag = f"--max-file-size {size}M"
            yield _asking(same, f"files of up to {size} MB", flag, max_file_bytes=size * _MB)
        case "memory" if same.workload.max_memory_bytes is not None:
            size = ceil(candidate.footprint.peak / _MB)
            flag = f"--max-memory-mb {size}"
            yield _asking(same, f"a memory limit of {size} MB", flag, max_memory_bytes=size * _MB)


def _other_input(candidate: Candidate, reason: Reason, same: Change) -> Iterator[Change]:
    """A shorter sound, or a longer context for it."""
    wish = same.workload
    match reason.rule:
        case "sound" if reason.has_value is not None:
            seconds = int(reason.has_value)
            text = f"sound of {seconds} s in place of {wish.max_audio_seconds}"
            yield _asking(same, text, f"--max-audio-seconds {seconds}", max_audio_seconds=seconds)
        # Too short for what the sound takes, and not too long for the model.
        case "context" if reason.has_value == wish.context and reason.needs_value is not None:
            length = 1 << int(reason.needs_value).bit_length()
            text = f"a context of {length} in place of {wish.context}"
            yield _asking(same, text, f"--context {length}", context=length)


def _other_wish(candidate: Candidate, reason: Reason, same: Change) -> Iterator[Change]:
    """A licence that is not asked for, a lower score or shorter vectors: what the user wants comes
    last."""
    match reason.rule:
        case "dimension" if reason.has_value is not None:
            numbers = int(reason.has_value)
            text = f"vectors of {numbers} numbers in place of {same.workload.dimension}"
            change = _asking(same, text, f"--dimension {numbers}", dimension=numbers)
            yield replace(change, cost=same.cost + _WISH_PENALTY)
        case "licence":
            stated = candidate.variant.license
            licence = stated or "any"
            text = f"accepting the licence {licence}" if stated else "accepting an unstated licence"
            change = _asking(same, text, f"--license {licence}", licenses=(licence,))
            yield replace(change, cost=_WISH_PENALTY)
        case "score" if reason.has_value is not None:
            name, has = reason.needs.partition(" of ")[0], reason.has_value
            text = f"{name} of {has:g} in place of {reason.needs_value:g}"
            scores = {**same.workload.min_scores, name: has}
            change = _asking(same, text, f"--min-score '{name}={has:g}'", min_scores=scores)
            yield replace(change, cost=same.cost + _WISH_PENALTY)
