"""The rules a candidate must meet. Each is a small function that says what it would take and what
there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from packager.device.target import Device
from packager.need.floors import Floor
from packager.need.usecases import UseCase, thinking_tokens
from packager.need.workload import Workload
from packager.remembered import last_answer
from packager.select.candidate import Reason
from packager.select.sizing import sound_prompt
from packager.select.stand_ins import published, stand_in

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
    yield from sound(variant, workload)
    yield from context(variant, workload)
    yield from trained_on(variant, workload)
    yield from dimension(variant, workload)
    # Languages of one family share their tests: what fails for both is said once.
    yield from dict.fromkeys(
        reason for floor in floors(workload, case) for reason in score(variant, floor, case.modes)
    )


def tuning(variant: Variant, case: UseCase) -> Iterator[Reason]:
    """A base model continues text, it does not answer; and a use case names what it is served
    by."""
    wanted = f"a {' or '.join(case.kinds)} model tuned to answer"
    if case.task != "generate":
        wanted = f"a model made for {case.kinds[0]}"
        if case.task == "rerank" and variant.kind == "embedding":
            # A score is the weight of the words yes and no: without an end for text there is none.
            yield Reason("task", wanted, f"a model made for {variant.kind}")
        elif variant.kind not in case.kinds:
            yield Reason("tuning", wanted, f"{_article(variant.kind)} {variant.kind} model")
    elif variant.kind in RETRIEVAL_KINDS:
        # No end for text: naming it changes nothing.
        yield Reason("task", wanted, f"a model made for {variant.kind}")
    elif variant.base:
        yield Reason("tuning", wanted, "a base model")
    elif variant.kind not in case.kinds:
        yield Reason("tuning", wanted, f"{_article(variant.kind)} {variant.kind} model")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


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
    towers = {"image": variant.tower, "audio": variant.audio_tower}
    built = ("text", *(kind for kind, tower in towers.items() if tower is not None))
    if any(kind not in built for kind in workload.modality):
        has = "the text decoder alone, which is all that is built of it"
        if len(built) > 1:
            has = f"{' and '.join(built)}, which is all that is built of it"
        if variant.text_alone is not None:
            has += f" ({variant.text_alone})"
        yield Reason("modality", " and ".join(workload.modality), has)


def sound(variant: Variant, workload: Workload) -> Iterator[Reason]:
    """A sound must not be longer than the encoder takes where it cannot be cut, and what it becomes
    must leave room in the context."""
    tower, seconds = variant.audio_tower, workload.max_audio_seconds
    if tower is None or seconds is None or tower.window is None:
        return
    if seconds > tower.window:
        yield Reason(
            "sound",
            f"{seconds} s of sound at once",
            f"{tower.window} s, and its answer is about a sound as a whole",
            seconds,
            tower.window,
        )
    prompt = sound_prompt(tower, workload)
    if prompt >= workload.context:
        yield Reason(
            "context",
            f"more than the {prompt} tokens that its sound and the rest of the prompt take",
            f"{workload.context} tokens",
            prompt,
            workload.context,
        )


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
    if not workload.languages:
        return
    # Late, here and below: their list is for who names a language alone.
    from packager.need import languages

    for code in workload.languages:
        known = languages.named(variant.family)
        wanted = f"a model whose publisher names {languages.language(code).name}"
        if known is not None and code not in known.languages:
            yield Reason("language", wanted, f"{len(known.languages)} other languages")
        elif known is None and languages.unproven(code):
            yield Reason(
                "language", wanted, "no list by its publisher, and no benchmark is about it"
            )


@last_answer
def floors(workload: Workload, case: UseCase) -> tuple[Floor, ...]:
    """The floors of use case and languages, except where the user set one on the same benchmark; a
    floor of 0 asks nothing. What gives vectors or scores is judged over many languages by the floor
    of its use case: the tests of single languages ask for answers.

    Of a language's tests only the one that the user named has another bar: the others may decide
    for other variants.
    """
    kept = tuple(
        floor
        for floor in case.floors
        if not any(name in workload.min_scores for name, _ in floor.any_of)
    )
    if workload.languages and case.task == "generate":
        from packager.need import languages

        of_languages = filter(None, map(languages.floor, workload.languages))
        kept += tuple(_lowered(floor, workload) for floor in of_languages)
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
    any, the first that something stands for."""
    for name, least in floor.any_of:
        value = published(variant, name, modes)
        if value is not None:
            if value < least:
                yield Reason("score", f"{name} of {least:g} or more", f"{value:g}", least, value)
            return
    for name, least in floor.any_of:
        instead = stand_in(variant, name, modes)
        if instead is None:
            continue
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
    if variant.thinking == "always" and case.modes[0] != "thinking":
        yield (
            f"It thinks before every answer: about {thinking_tokens()} tokens are counted before "
            "the first of the answer."
        )
    if workload.languages:
        from packager.need import languages

        known = languages.named(variant.family)
        bare = [
            code
            for code in workload.languages
            if known and code in known.languages and languages.unproven(code)
        ]
        if bare:
            yield languages.bare_word(bare)
