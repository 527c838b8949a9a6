"""Everything a manifest says that anything reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from packager.records.base import Count, Free, Number, Record, Tokens
from packager.records.behaviour import Behaviour
from packager.records.measurement import Measurement
from packager.records.origin import AdapterPackage, SourceOf
from packager.records.quality import Quality
from packager.records.speculation import Speculation
from packager.records.verdict import Verdict


class DeviceIdentity(Record, frozen=True, kw_only=True):
    """What tells the device from other machines."""

    kind: str | None = None
    isa: str | None = None
    cores: Count | None = None
    memory_bytes: Count | None = None
    runs_on: str | None = None
    gpu: str | None = None
    npu: str | None = None
    gpu_memory_bytes: Count | None = None
    gpus: Count | None = None
    known_by: tuple[str, ...] = ()


class Need(Record, frozen=True, kw_only=True):
    """What was asked of the package."""

    use_case: str | None = None
    context: Tokens | None = None
    prompt: Tokens | None = None
    languages: tuple[str, ...] = ()
    max_file_bytes: Count | None = None
    dimension: Tokens | None = None
    parallel: Tokens | None = None
    max_image_tokens: Tokens | None = None
    max_audio_seconds: Count | None = None
    documents_per_second: Number | None = None
    query_ms: Number | None = None


class VariantOf(Record, frozen=True, kw_only=True):
    """The checkpoint that was built."""

    repo_id: str = ""
    revision: str | None = None
    license: str | None = None
    spdx: str | None = None


class RecipeOf(Record, frozen=True, kw_only=True):
    """The recipe: its id, the type of its cache, a summary."""

    id: str = ""
    kv: str | None = None
    summary: str | None = None
    provider: str | None = None


class EngineOutcome(Record, frozen=True, kw_only=True):
    """What became of one way of starting the engine."""

    rung: str | None = None
    result: str | None = None
    part: str | None = None
    signal: str | None = None
    said: str | None = None
    seconds: Number | None = None


ShortText = Annotated[str, msgspec.Meta(max_length=200)]
ShortTexts = Annotated[dict[ShortText, ShortText], msgspec.Meta(max_length=32)]


class EngineSettings(Record, frozen=True, kw_only=True):
    """How the engine was started, why not otherwise, and what was tried before."""

    rung: str | None = None
    reason: str | None = None
    environment: ShortTexts | None = None
    variables: ShortTexts | None = None
    options: ShortTexts | None = None
    flags: tuple[str, ...] = ()
    before: tuple[EngineOutcome, ...] = ()

    def _check_texts(self) -> None:
        super()._check_texts()
        for table in (self.environment, self.variables, self.options):
            for pair in (table or {}).items():
                if not all(text.isprintable() for text in pair):
                    raise ValueError("`environment` holds control characters")


EngineVersion = Annotated[str, msgspec.Meta(pattern=r"^[bv]?[0-9]{1,9}(\.[0-9]{1,9}){0,4}$")]
"""`b5092`, `2026.4.1`."""


class MinimumReason(Record, frozen=True, kw_only=True):
    """Something that a package holds, and the first version of the engine that reads it."""

    what: str
    version: EngineVersion
    source: str = ""


class Minimum(Record, frozen=True, kw_only=True):
    """The oldest version of an engine that reads the package: the newest of its reasons."""

    engine: str
    version: EngineVersion
    reasons: tuple[MinimumReason, ...] = ()


class Engine(Record, frozen=True, kw_only=True):
    """The engine that runs it, the version it was built and measured with, how it is started where
    that is not as usual, and the oldest versions that read the package."""

    name: str
    version: str | None = None
    settings: EngineSettings | None = None
    minimum: tuple[Minimum, ...] = ()


class Offload(Record, frozen=True, kw_only=True):
    """How many layers a GPU with memory of its own takes."""

    gpu_layers: Tokens | None = None
    all_layers: Tokens | None = None


class PredictedDrafting(Record, frozen=True, kw_only=True):
    """Bytes that drafting tokens takes beside the model."""

    total: Count = 0


class PredictedFootprint(Record, frozen=True, kw_only=True):
    """Bytes; `drafting` is there where the package drafts tokens."""

    total: Count | None = None
    peak: Count | None = None
    load_peak: Count = 0
    drafting: PredictedDrafting | None = None

    @property
    def peak_alone(self) -> int | None:
        """The peak without what drafts, which is what the benchmark of a build measures."""
        if self.drafting is None or self.total is None:
            return self.peak
        return max(self.total - self.drafting.total, self.load_peak)


class PredictedRates(Record, frozen=True, kw_only=True):
    """Tokens per second, and milliseconds to the first token and of them for the encoder of a
    picture or sound."""

    decode_tps: Number | None = None
    prefill_tps: Number | None = None
    ttft_ms: Number | None = None
    encode_ms: Number | None = None


class Predicted(Record, frozen=True, kw_only=True):
    """What `fit` said before anything was built; memory and the first token hold a picture of so
    many tokens or a sound of so many seconds, where the package takes them."""

    footprint: PredictedFootprint | None = None
    forecast: PredictedRates | None = None
    artifact_bytes: Count | None = None
    image_tokens: Tokens | None = None
    audio_seconds: Count | None = None


class Why(Record, frozen=True, kw_only=True):
    """The choice in a sentence."""

    sentence: str | None = None


class EndOfTurn(Free, frozen=True, kw_only=True):
    """A token that ends a turn, and its text as the model writes it."""

    id: Count | None = None
    text: str = ""


class ChatProfile(Free, frozen=True, kw_only=True):
    """What the build fixed for every chat; texts go to the model and to no terminal."""

    thinking: str | None = None
    thinking_budget: Tokens | None = None
    system_prompt: str | None = None
    # Any: functions in the form of OpenAI's, whose JSON schemas nobody here reads.
    tools: tuple[dict[str, Any], ...] = ()
    sampling: dict[str, Number] | None = None


class Chat(Record, frozen=True, kw_only=True):
    """How the package chats: tokens that end a turn, and the profile that every export obeys."""

    ends: tuple[EndOfTurn, ...] = ()
    notes: tuple[str, ...] = ()
    prefix_stable: bool | None = None
    profile: ChatProfile | None = None


class WarmStart(Record, frozen=True, kw_only=True):
    """What a fixed prefix gains whose state is kept (`how`: in a `file` or in the `process`):
    milliseconds to the first token with and without it, on the machine that built the package;
    bytes of the state, as predicted and as written (0 in a process)."""

    how: Literal["file", "process"]
    prefix_tokens: Tokens
    prefix_sha256: str = ""
    predicted_state_bytes: Count | None = None
    state_bytes: Count | None = None
    ttft_cold_ms: Number | None = None
    ttft_warm_ms: Number | None = None

    def sentence(self) -> str:
        """The gain in a sentence; empty where it was not measured."""
        cold, warm = self.ttft_cold_ms, self.ttft_warm_ms
        if cold is None or warm is None:
            return ""
        return (
            f"Every chat begins with the same {self.prefix_tokens} tokens: the first token comes "
            f"after {warm:.0f} ms with their state kept, after {cold:.0f} ms without."
        )


class Alternative(Record, frozen=True, kw_only=True):
    """What was built beside it and not kept."""

    runtime: Engine | None = None
    recipe: str | None = None
    artifact_bytes: Count | None = None
    predicted: Predicted | None = None
    measured: Measurement | None = None
    not_measured: str | None = None
    quality: Quality | None = None
    verdicts: tuple[Verdict, ...] = ()
    reason: str | None = None


class Retrieval(Free, frozen=True, kw_only=True):
    """How the package makes vectors or scores: its task, the id of the token behind a text, what
    stands in front of a query or the whole prompt of a reranker, and how many numbers are kept."""

    task: str
    pooling: str | None = None
    normalized: bool | None = None
    end: Count | None = None
    query: str | None = None
    prompt: str | None = None
    hidden: Tokens | None = None
    dimension: Tokens | None = None


class Vision(Record, frozen=True, kw_only=True):
    """How the package takes pictures: the file of the vision tower and its type, which projector
    the engine knows it by, the side in pixels of a patch and of what becomes one token, the layers
    of DeepStack, and the most tokens that one picture was planned with."""

    file: str
    type: str | None = None
    projector: str | None = None
    parameters: Count | None = None
    patch_size: Tokens | None = None
    pixels_per_token: Tokens | None = None
    deepstack: tuple[Count, ...] = ()
    max_image_tokens: Tokens | None = None


class Audio(Record, frozen=True, kw_only=True):
    """How the package takes sound: the file of the audio encoder and its type, which projector the
    engine knows it by, samples per second, tokens of a second, and the longest sound that it was
    planned to take at once, in seconds.

    Where every sound is filled up with silence, `window_seconds` is how far and `window_tokens`
    what it takes of the context, however short it is: such a package answers questions about a
    sound as a whole, and cuts none.
    """

    file: str
    type: str | None = None
    projector: str | None = None
    parameters: Count | None = None
    sample_rate: Count | None = None
    tokens_per_second: Count | None = None
    max_audio_seconds: Count | None = None
    window_seconds: Count | None = None
    window_tokens: Count | None = None


class Contents(Record, frozen=True, kw_only=True):
    """The fields of a manifest; see docs/manifest.md."""

    name: str
    files: list[Any]
    runtime: Engine
    recipe: RecipeOf
    variant: VariantOf
    source: SourceOf
    version: str | None = None
    created: str | None = None
    target: str | None = None
    device: DeviceIdentity | None = None
    workload: Need | None = None
    artifact_bytes: Count | None = None
    offload: Offload | None = None
    predicted: Predicted | None = None
    errors_percent: dict[str, Number] | None = None
    measured: Measurement | None = None
    not_measured: str | None = None
    measurements: tuple[Measurement, ...] = ()
    quality: Quality | None = None
    behaviour: Behaviour | None = None
    verdicts: tuple[Verdict, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    why: Why | None = None
    build_key: str | None = None
    content_sha256: str | None = None
    # Any: versions by distribution, null in some, and what a compiler adds.
    tools: dict[str, Any] = msgspec.field(default_factory=dict)
    sampling: dict[str, Number] | None = None
    chat: Chat | None = None
    retrieval: Retrieval | None = None
    modality: Literal["text", "vision", "audio"] = "text"
    vision: Vision | None = None
    audio: Audio | None = None
    adapter: AdapterPackage | None = None
    warm: WarmStart | None = None
    speculation: Speculation | None = None

    @property
    def task(self) -> str:
        """What it gives: text, vectors or scores (packager.shape.TASKS)."""
        return self.retrieval.task if self.retrieval else "generate"

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together that it was planned for."""
        return self.workload.context if self.workload else None

    @property
    def telling(self) -> Measurement | None:
        """The measurement that says most about the device: the newest one taken there, else that of
        the build, else the newest of all."""
        first, added = self.measured, self.measurements
        if first is not None and first.on_device:
            return first
        there = [later for later in added if later.on_device]
        if there:
            return there[-1]
        return first or (added[-1] if added else None)

    @property
    def seen_on_device(self) -> bool:
        """Whether any measurement was taken on the device."""
        telling = self.telling
        return telling is not None and telling.on_device
