"""Variant: one Qwen checkpoint that exists in the world, as the catalogue's files describe it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from packager.json_values import JsonObject
from packager.shape import Shape, Tower
from packager.shape.audio import AudioTower

Kind = Literal[
    "general",
    "coder",
    "math",
    "reasoning",
    "vision",
    "audio",
    "omni",
    "embedding",
    "reranking",
    "guard",
    "reward",
    "speech",
    "world",
]
Thinking = Literal["never", "switch", "always"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One published checkpoint. None and empty mean that no source says so; nothing is guessed.

    `kind` is what it was made for; a general model may still read images, see `modality_in`.
    `thinking` says whether it reasons before it answers: `never`, `always`, or by a `switch` in
    the chat template. Parameters count a tied matrix once: `params_text` the text decoder,
    `params_total` with vision and audio encoders, `params_active` what one token of a mixture
    touches. `params_mtp` is the draft module for multi-token prediction. `context_native` is the
    config's max_position_embeddings, `context_extended` what the documentation says is reachable
    with YaRN, in tokens. `tower` is the vision tower, where it can be built, `audio_tower` the
    audio encoder. `assumed` names fields of `shape` that no source states and that hold
    transformers' default. `unbuildable` says why no runtime builds it, `text_alone` why an encoder
    of it is not built, and `nearest` names the closest variant that can be built.
    `trained_tokens` is what it was pretrained on, as published: often an upper bound for the
    family. `system_prompt` says, of the first generation, whether it was trained to follow one.
    """

    repo_id: str
    family: str
    kind: Kind
    base: bool
    thinking: Thinking
    model_type: str
    architecture: str
    release_date: str | None
    license: str | None
    license_name: str | None
    research_only: bool
    modality_in: tuple[str, ...]
    modality_out: tuple[str, ...]
    shape: Shape | None
    shape_verified: bool
    assumed: tuple[str, ...]
    params_total: int | None
    params_text: int | None
    params_active: int | None
    params_vision: int | None
    params_audio: int | None
    params_mtp: int | None
    context_native: int | None
    context_extended: int | None
    published_precisions: tuple[str, ...]
    unbuildable: str | None
    nearest: str | None
    notes: tuple[str, ...]
    sources: dict[str, str] = field(hash=False)
    tower: Tower | None = None
    audio_tower: AudioTower | None = None
    trained_tokens: int | None = None
    system_prompt: Literal["enhanced", "plain"] | None = None
    text_alone: str | None = None

    def __hash__(self) -> int:
        # There is one row of a repository; all the other fields would take as long as a search.
        return hash(self.repo_id)

    @property
    def name(self) -> str:
        """The short name: `Qwen3-0.6B`."""
        return self.repo_id.rpartition("/")[2]

    @property
    def chat(self) -> bool:
        """Tuned to follow instructions, with a chat template."""
        return not self.base

    @property
    def quantized_repos(self) -> tuple[str, ...]:
        """The repositories in which Qwen itself published it in a smaller precision."""
        return tuple(
            f"{self.repo_id}-{precision}"
            for precision in self.published_precisions
            if precision != "BF16" and not self.repo_id.endswith(f"-{precision}")
        )

    def as_dict(self) -> JsonObject:
        """JSON form of everything but the scores; the sources stand beside the numbers."""
        # Late, as everywhere: --help does without it. Five times as fast as dataclasses.asdict.
        import msgspec

        fields = msgspec.to_builtins(self)
        del fields["sources"], fields["published_precisions"]
        return {
            "repo_id": fields.pop("repo_id"),
            "name": self.name,
            **fields,
            "chat": self.chat,
            "published_precisions": list(self.published_precisions),
            "quantized_repos": list(self.quantized_repos),
            "sources": self.sources,
        }
