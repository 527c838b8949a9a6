"""Workload: what the user needs from the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from packager.errors import PackError, usage
from packager.json_values import JsonObject
from packager.need.usecases import PICTURES, SOUND, use_case
from packager.shape.audio import audio_tokens

Preference = Literal["smallest", "quality", "speed", "balanced", "cost"]
PREFERENCES: tuple[Preference, ...] = ("smallest", "quality", "speed", "balanced", "cost")
_OF_TASKS = (
    ("dimension", "vectors", ("embed",)),
    ("documents_per_second", "vectors or scores", ("embed", "rerank")),
    ("query_ms", "vectors", ("embed",)),
)
"""Fields that mean something for some tasks alone, and what those give."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The need, as flags give it; None means "no limit".

    `context` counts prompt and answer together, `prompt` the tokens of a typical prompt (for TTFT).
    `min_scores` maps a benchmark's name to the least published score, in place of the use case's
    own floor on it. `licenses` lists the licence ids that are acceptable ("any" for all); empty
    means any that permits commercial use or says nothing. `languages` are codes of ISO 639 in which
    answers are needed; English goes without saying. `dimension` is how many numbers of a vector are
    kept, for embeddings only; None keeps all. `parallel` sequences are answered at once, each with
    a context of its own. `max_image_tokens` is what one picture may take of the context, None where
    no pictures come in; `max_audio_seconds` is the longest sound that is taken at once, None where
    none comes in. `documents_per_second` is the least rate at which texts of `prompt` tokens become
    vectors or scores, `query_ms` the longest that a query may take to become a vector.
    """

    use_case: str = "chat"
    context: int = 4096
    prompt: int = 512
    min_decode_tps: float | None = None
    max_ttft_ms: float | None = None
    max_artifact_bytes: int | None = None
    max_file_bytes: int | None = None
    max_memory_bytes: int | None = None
    min_scores: dict[str, float] = field(default_factory=dict)
    modality: tuple[str, ...] = ("text",)
    licenses: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    prefer: Preference = "smallest"
    dimension: int | None = None
    parallel: int = 1
    max_image_tokens: int | None = None
    max_audio_seconds: int | None = None
    documents_per_second: float | None = None
    query_ms: float | None = None

    @property
    def pictures(self) -> bool:
        """Whether pictures come in."""
        return "image" in self.modality

    @property
    def sound(self) -> bool:
        """Whether sound comes in."""
        return "audio" in self.modality

    def as_dict(self) -> JsonObject:
        """JSON form, one key per field."""
        return asdict(self)


def workload_for(name: str) -> Workload:
    """What a use case asks when nothing else is said. Raises PackError (usage) for an unknown
    name."""
    case = use_case(name)
    return Workload(
        use_case=name,
        context=int(case.context.value),
        prompt=int(case.prompt.value),
        min_decode_tps=case.min_decode_tps.value if case.min_decode_tps else None,
        max_ttft_ms=case.max_ttft_ms.value if case.max_ttft_ms else None,
        modality=case.modality,
        max_image_tokens=int(case.max_image_tokens.value) if case.max_image_tokens else None,
        max_audio_seconds=int(case.max_audio_seconds.value) if case.max_audio_seconds else None,
    )


def merge(flags: Mapping[str, Any], default: Workload | None) -> Workload:
    """The workload of explicit `flags` (fields of Workload; None where not given) over a target's
    over the use case's.

    A target's default speaks for its own use case. With another one, context, prompt, rates, scores
    and modality come from that, and only what belongs to the device stays: limits of size and
    memory, licences, languages, preference. Raises PackError (usage) where the prompt would not fit
    into the context.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    name = given.get("use_case") or (default.use_case if default else "chat")
    workload = workload_for(name)
    if default is not None:
        kept = [
            "max_artifact_bytes",
            "max_file_bytes",
            "max_memory_bytes",
            "licenses",
            "languages",
            "prefer",
            "max_image_tokens",
        ]
        if default.use_case == name:
            kept += ["context", "prompt", "min_decode_tps", "max_ttft_ms", "min_scores"]
            kept += ["modality", "parallel", "dimension", "documents_per_second", "query_ms"]
        workload = replace(
            workload, **{key: value for key in kept if (value := getattr(default, key)) is not None}
        )
    workload = replace(workload, **given)
    _refuse_other_tasks(workload)
    workload = _with_sound(_with_pictures(workload, given), given)
    if "context" in given and "prompt" not in given and workload.prompt >= workload.context:
        # A context set by hand keeps the room for an answer that the use case had in mind.
        workload = replace(workload, prompt=max(1, workload.context // 2))
    if workload.prompt >= workload.context:
        raise usage(
            f"A prompt of {workload.prompt} tokens leaves no room for an answer in a context of "
            f"{workload.context}.",
            "Give a larger --context.",
        )
    return workload


def _refuse_other_tasks(workload: Workload) -> None:
    """Raise PackError (usage) for what only vectors or scores have where there are none."""
    task = use_case(workload.use_case).task
    for name, what, tasks in _OF_TASKS:
        if getattr(workload, name) is not None and task not in tasks:
            raise usage(
                f"The use case {workload.use_case!r} gives no {what}, so "
                f"--{name.replace('_', '-')} has no effect.",
                f"Ask for --use-case {' or '.join(tasks)}.",
            )
    if workload.min_decode_tps and task != "generate":
        raise no_answers(workload.use_case, "--min-decode-tps")


def no_answers(use_case: str, flag: str) -> PackError:
    """What is said of a flag about answers where a vector or a score is all that comes."""
    return usage(
        f"The use case {use_case!r} gives no answers, so {flag} has no effect.",
        "Ask for a rate of texts: --documents-per-second.",
    )


def _with_pictures(workload: Workload, given: Mapping[str, Any]) -> Workload:
    """The limit of image tokens where pictures come in, and a prompt that holds one of that size.
    Raises PackError (usage) for a limit where none come in."""
    if not workload.pictures:
        if "max_image_tokens" in given:
            raise usage(
                f"No pictures come in for {workload.use_case!r}, so --max-image-tokens has no "
                "effect.",
                "Ask for --use-case vision, or add --modality vision.",
            )
        return replace(workload, max_image_tokens=None)
    usual = use_case(PICTURES).max_image_tokens
    assert usual is not None
    if workload.max_image_tokens is None:
        workload = replace(workload, max_image_tokens=int(usual.value))
    tokens = workload.max_image_tokens or 0
    beside = workload.prompt - int(usual.value)
    prompt = tokens + (beside if beside > 0 else workload.prompt)
    return _with_prompt(workload, prompt, given)


def _with_sound(workload: Workload, given: Mapping[str, Any]) -> Workload:
    """The seconds of sound where it comes in, and a prompt that holds as many. Raises PackError
    (usage) for seconds where none comes in."""
    if not workload.sound:
        if "max_audio_seconds" in given:
            raise usage(
                f"No sound comes in for {workload.use_case!r}, so --max-audio-seconds has no "
                "effect.",
                "Ask for --use-case audio, or add --modality audio.",
            )
        return replace(workload, max_audio_seconds=None)
    case = use_case(SOUND)
    assert case.max_audio_seconds is not None
    usual = int(case.max_audio_seconds.value)
    seconds = workload.max_audio_seconds or usual
    workload = replace(workload, max_audio_seconds=seconds)
    beside = workload.prompt
    if workload.use_case == SOUND:
        beside = max(1, beside - audio_tokens(usual))
    return _with_prompt(workload, audio_tokens(seconds) + beside, given)


def _with_prompt(workload: Workload, prompt: int, given: Mapping[str, Any]) -> Workload:
    """A prompt of that many tokens and a context that leaves as much for the answer, where the user
    has not given them."""
    if "prompt" in given or prompt == workload.prompt:
        return workload
    context = workload.context
    if "context" not in given:
        context = max(context, prompt + workload.context - workload.prompt)
    return replace(workload, prompt=prompt, context=context)
