"""The rules a candidate must meet. Each is a small function that says what it would take and what
there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from packager.device.target import Device
from packager.need import languages
from packager.need.floors import Floor
from packager.need.usecases import UseCase, thinking_tokens
from packager.need.workload import Workload
from packager.predict.forecast import Forecast
from packager.predict.memory import Footprint
from packager.predict.offload import Split
from packager.recipe import Recipe
from packager.select.candidate import Reason
from packager.select.stand_ins import published, stand_in
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.catalog import Variant

_PROVIDERS = {
    "cpu": "a processor",
    "cuda": "an NVIDIA GPU",
    "dml": "a GPU under Windows",
    "webgpu": "a GPU",
}

RETRIEVAL_KINDS = {"embedding": "embed", "reranking": "rerank"}
"""Tunings of the catalogue that give no text, and the use case that each is for."""


def task_of(variant: Variant) -> str:
    """What the catalogue says that a variant gives (packager.shape.TASKS)."""
    return RETRIEVAL_KINDS.get(variant.kind, "generate")


FORGIVEN_WHEN_NAMED = ("tuning", "score", "language")
"""Who names a variant knows what it is for and how good it is; what the device cannot do stays
impossible."""


def of_variant(variant: Variant, workload: Workload, case: UseCase) -> Iterator[Reason]:
    """Rules that look at the variant alone, whatever the recipe and the device."""
    yield from tuning(variant, case)
    yield from licence(variant, workload)
    yield from modality(variant, workload)
    yield from context(variant, workload)
    yield from trained_on(variant, workload)
    yield from dimension(variant, workload)
    # Languages of one family share their tests: what fails for both is said once.
    yield from dict.fromkeys(
        reason for floor in floors(workload, case) for reason in score(variant, floor, case.modes)
    )


def of_size(
    footprint: Footprint,
    artifact: int,
    device: Device,
    workload: Workload,
    available: int,
    split: Split | None = None,
) -> Iterator[Reason]:
    """Rules about bytes: memory, storage, the artifact's own limit. `split` where a GPU with memory
    of its own takes the model."""
    if split is not None and device.host_bandwidth is not None:
        yield from memories(split, device, workload, available)
    else:
        yield from memory(footprint, workload, available)
    yield from storage(artifact, device)
    yield from artifact_size(artifact, workload)


def waiting(forecast: Forecast, variant: Variant, case: UseCase) -> Forecast:
    """The forecast with the thinking before an answer in its first token, for a variant that always
    thinks.

    Not where the use case wants thinking, which is then shown as it comes.
    """
    if variant.thinking != "always" or case.modes[0] == "thinking":
        return forecast
    tokens = 1000 * thinking_tokens()
    return replace(
        forecast,
        ttft_ms=round(forecast.ttft_ms + tokens / forecast.decode_tps, 3),
        ttft_low_ms=round(forecast.ttft_low_ms + tokens / forecast.high, 3),
        ttft_high_ms=round(forecast.ttft_high_ms + tokens / forecast.low, 3),
    )


def of_speed(forecast: Forecast, workload: Workload) -> Iterator[Reason]:
    """Rules about rates and waiting that not even the better end of the forecast's range meets."""
    yield from decode(forecast, workload, forecast.high)
    yield from first_token(forecast, workload, forecast.ttft_low_ms)


def may_miss(forecast: Forecast, workload: Workload) -> Iterator[Reason]:
    """Those that the forecast misses while its range reaches them: how far off it is, and between
    what it lies."""
    reasons = (
        *decode(forecast, workload, forecast.decode_tps),
        *first_token(forecast, workload, forecast.ttft_ms),
    )
    surely = {reason.rule for reason in of_speed(forecast, workload)}
    ranges = {
        "decode": f"between {forecast.low:.3g} and {forecast.high:.3g}",
        "ttft": f"between {forecast.ttft_low_ms:.0f} and {forecast.ttft_high_ms:.0f} ms",
    }
    for reason in reasons:
        if reason.rule not in surely:
            yield replace(reason, has=f"{reason.has}, {ranges[reason.rule]}")


def tuning(variant: Variant, case: UseCase) -> Iterator[Reason]:
    """A base model continues text, it does not answer; and a use case names what it is served
    by."""
    wanted = f"a {' or '.join(case.kinds)} model tuned to answer"
    if case.task != "generate":
        wanted = f"a model made for {case.kinds[0]}"
        if variant.kind not in case.kinds:
            yield Reason("tuning", wanted, f"a {variant.kind} model")
    elif variant.kind in RETRIEVAL_KINDS:
        # No end for text: naming it changes nothing.
        yield Reason("task", wanted, f"a model made for {variant.kind}")
    elif variant.base:
        yield Reason("tuning", wanted, "a base model")
    elif variant.kind not in case.kinds:
        yield Reason("tuning", wanted, f"a {variant.kind} model")


def licence(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """With no wish of the user's, a licence that forbids commercial use is not chosen; a list of
    the user's is exact."""
    stated = variant.license or "not stated by any source"
    wanted = {wish.casefold() for wish in workload.licenses}
    if "any" in wanted:
        return
    if wanted:
        if (variant.license or "").casefold() not in wanted:
            yield Reason("licence", " or ".join(workload.licenses), stated)
    elif variant.research_only:
        yield Reason("licence", "one that permits commercial use (or --license any)", stated)


def modality(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """Every kind of input that the workload has must be one that the variant takes, and whose
    encoder is built."""
    missing = [kind for kind in workload.modality if kind not in variant.modality_in]
    if missing:
        yield Reason("modality", " and ".join(workload.modality), " and ".join(variant.modality_in))
        return
    built = ("text", "image") if variant.tower is not None else ("text",)
    if any(kind not in built for kind in workload.modality):
        has = "the text decoder alone, which is all that is built of it"
        if variant.tower is not None:
            has = "text and image, which is all that is built of it"
        yield Reason("modality", " and ".join(workload.modality), has)


def context(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """The context must lie within what the variant was trained for, or is documented to be extended
    to."""
    limit = max(variant.context_native or 0, variant.context_extended or 0)
    if limit and workload.context > limit:
        yield Reason(
            "context", f"{workload.context} tokens", f"{limit} tokens", workload.context, limit
        )


def dimension(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """A vector has as many numbers as the hidden state: fewer can be kept, not more."""
    wanted, shape = workload.dimension, variant.shape
    if wanted is not None and shape is not None and wanted > shape.hidden:
        yield Reason(
            "dimension",
            f"vectors of {wanted} numbers",
            f"{shape.hidden} numbers",
            wanted,
            shape.hidden,
        )


def trained_on(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """Every language must be one that the publisher names; where no source lists any, the published
    scores alone decide."""
    for code in workload.languages:
        known = languages.named(variant.family)
        wanted = f"a model whose publisher names {languages.language(code).name}"
        if known is not None and code not in known.languages:
            yield Reason("language", wanted, f"{len(known.languages)} other languages")
        elif known is None and languages.unproven(code):
            yield Reason(
                "language", wanted, "no list by its publisher, and no benchmark is about it"
            )


def floors(workload: Workload, case: UseCase) -> tuple[Floor, ...]:
    """The floors of use case and languages, except where the user set one on the same benchmark; a
    floor of 0 asks nothing.

    Of a language's tests only the one that the user named has another bar: the others may decide
    for other variants.
    """
    kept = tuple(
        floor
        for floor in case.floors
        if not any(name in workload.min_scores for name, _ in floor.any_of)
    )
    kept += tuple(
        _lowered(floor, workload)
        for floor in map(languages.floor, workload.languages)
        if floor is not None
    )
    own = (
        Floor(((name, least),), "asked for", "--min-score")
        for name, least in workload.min_scores.items()
        if least > 0
    )
    return (*kept, *own)


def _lowered(floor: Floor, workload: Workload) -> Floor:
    return replace(
        floor,
        any_of=tuple((name, workload.min_scores.get(name, least)) for name, least in floor.any_of),
    )


def score(variant: Variant, floor: Floor, modes: tuple[str, ...]) -> Iterator[Reason]:
    """The first benchmark of the floor that the variant has a published score of decides; without
    any, what stands for the first."""
    for name, least in floor.any_of:
        value = published(variant, name, modes)
        if value is not None:
            if value < least:
                yield Reason("score", f"{name} of {least:g} or more", f"{value:g}", least, value)
            return
    name, least = floor.any_of[0]
    instead = stand_in(variant, name, modes)
    if instead is not None:
        if instead.value < least:
            yield Reason(
                "score",
                f"{name} of {least:g} or more",
                f"{instead.value:g}. {instead.why.rstrip('.')}",
                least,
                instead.value,
            )
        return
    names, bars = [name for name, _ in floor.any_of], {least for _, least in floor.any_of}
    wanted = " or ".join(f"{name} of {least:g}" for name, least in floor.any_of) + " or more"
    if len(names) > 1 and len(bars) == 1:
        wanted = f"{bars.pop():g} or more in {', else '.join(names)}"
    yield Reason("score", wanted, "no published score")


def unit(recipe: Recipe, device: Device) -> Iterator[Reason]:
    """A recipe that is built for an execution provider needs a device whose models run on what that
    drives."""
    if device.runs_on == "npu" and "asym" in recipe.weights:
        wanted = "weights quantized symmetrically, which is what the driver of an NPU compiles"
        yield Reason("device", wanted, f"zero points ({recipe.id})")
    provider = recipe.provider
    if provider is not None and provider not in providers(device):
        name = {"gpu": device.gpu, "npu": device.npu}.get(device.runs_on, device.cpu)
        has = (
            "a device that runs models on its "
            f"{device.runs_on.upper()}{f' ({name})' if name else ''}"
        )
        yield Reason("device", _PROVIDERS.get(provider, provider), has)


def processor(runtime: str, device: Device) -> Iterator[Reason]:
    """The engine must run on the processor: wheels take instructions that an older one has not."""
    if runtime in device.cannot_run:
        yield Reason(
            "processor",
            f"a processor that {runtime} runs on",
            device.cannot_run[runtime].rstrip("."),
        )


def providers(device: Device) -> tuple[str, ...]:
    """The execution providers that the device's file allows, best first."""
    if device.runs_on == "cpu":
        return ("cpu",)
    if device.runs_on == "npu":
        return ()
    nvidia = any(word in device.gpu for word in ("NVIDIA", "CUDA"))
    windows = "x86_64" in device.isa
    return (*(("cuda",) if nvidia else ()), *(("dml",) if windows else ()), "webgpu")


def room(workload: Workload, available: int) -> int:
    """Bytes that a model may take where it runs: what there is, or the limit that was asked for."""
    return (
        available
        if workload.max_memory_bytes is None
        else min(available, workload.max_memory_bytes)
    )


def memory(footprint: Footprint, workload: Workload, available: int) -> Iterator[Reason]:
    """The peak, while loading or answering a full context, must fit into what one model may
    take."""
    limit = room(workload, available)
    if footprint.peak > limit:
        yield Reason(
            "memory", human_bytes(footprint.peak), human_bytes(limit), footprint.peak, limit
        )


def memories(split: Split, device: Device, workload: Workload, available: int) -> Iterator[Reason]:
    """What lies on the GPU must fit there, and what stays behind into the system's memory: both
    peaks, against both."""
    limit, beside = room(workload, available), device.host_available_bytes
    if split.device.peak > limit:
        # Not even in parts: together they would have to hold it.
        has = f"{human_bytes(limit)} on the GPU and {human_bytes(beside)} beside it"
        yield Reason(
            "memory",
            human_bytes(split.device.peak + split.host.peak),
            has,
            split.device.peak + split.host.peak,
            limit + beside,
        )
    elif split.host.peak > beside:
        yield Reason(
            "memory",
            f"{human_bytes(split.host.peak)} beside the GPU",
            human_bytes(beside),
            split.host.peak,
            beside,
        )


def storage(artifact: int, device: Device) -> Iterator[Reason]:
    """The model files must fit onto the device."""
    if device.storage_bytes is not None and artifact > device.storage_bytes:
        yield Reason(
            "storage",
            human_bytes(artifact),
            human_bytes(device.storage_bytes),
            artifact,
            device.storage_bytes,
        )


def artifact_size(artifact: int, workload: Workload) -> Iterator[Reason]:
    """The model files must stay below the limit of the workload."""
    limit = workload.max_artifact_bytes
    if limit is not None and artifact > limit:
        yield Reason(
            "artifact", human_bytes(artifact), f"a limit of {human_bytes(limit)}", artifact, limit
        )


def file_size(least: int, workload: Workload, runtime: str) -> Iterator[Reason]:
    """The largest file must stay below the limit; what a runtime does not split counts as a
    whole."""
    limit = workload.max_file_bytes
    if limit is not None and least > limit:
        yield Reason(
            "file",
            f"one file of {human_bytes(least)}, as {runtime} writes it",
            f"a limit of {human_bytes(limit)}",
            least,
            limit,
        )


def decode(forecast: Forecast, workload: Workload, rate: float) -> Iterator[Reason]:
    """Answers must come at the rate asked for; `rate` is what counts as the rate that there is."""
    floor = workload.min_decode_tps
    if floor is not None and rate < floor:
        yield Reason(
            "decode",
            f"{floor:g} tok/s",
            f"{forecast.decode_tps:.3g} tok/s",
            floor,
            forecast.decode_tps,
        )


def first_token(forecast: Forecast, workload: Workload, wait: float) -> Iterator[Reason]:
    """An answer to the typical prompt must begin in the time allowed; `wait` is what counts as the
    time that it takes."""
    limit = workload.max_ttft_ms
    if limit is not None and wait > limit:
        has = f"{forecast.ttft_ms:.0f} ms for {workload.prompt} tokens"
        yield Reason("ttft", f"{limit:.0f} ms", has, limit, forecast.ttft_ms)


def notes(variant: Variant, workload: Workload, case: UseCase, device: Device) -> Iterator[str]:
    """What is worth knowing of a variant that rejects nothing."""
    if device.runs_on == "npu":
        yield (
            "An NPU compiles the model before its first answer, which takes minutes, for a fixed "
            "length of prompt and context."
        )
    native = variant.context_native
    if native is None:
        yield "No source states how long a context it handles."
    elif native < workload.context <= (variant.context_extended or 0):
        yield (
            f"A context of {workload.context} is beyond the native {native}: it needs YaRN "
            "switched on."
        )
    if variant.license is None:
        yield "No source states its licence: read the model's own page."
    elif variant.research_only:
        yield f"Its licence ({variant.license}) forbids commercial use."
    known = languages.named(variant.family)
    if variant.thinking == "always" and case.modes[0] != "thinking":
        yield (
            f"It thinks before every answer: about {thinking_tokens()} tokens are counted before "
            "the first of the answer."
        )
    bare = [
        code
        for code in workload.languages
        if known and code in known.languages and languages.unproven(code)
    ]
    if bare:
        yield languages.bare_word(bare)
