"""The widths of a text decoder, frozen and light; packager.shape.decoder adds what follows from
them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypeVar

from packager.json_values import JsonObject
from packager.shape.audio import AudioTower
from packager.shape.tower import Tower

TASKS = ("generate", "embed", "rerank")
"""What a decoder is built for: text; the normalized state of the last token as a vector; the
probability of "yes" against that of "no" behind a prompt."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `count` of them, `active` per token, each `intermediate` wide."""

    count: int
    active: int
    intermediate: int
    shared_intermediate: int | None = None
    norm_topk: bool = False


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Gated DeltaNet layers with full attention at every `interval`-th layer (Qwen3-Next,
    Qwen3.5)."""

    interval: int
    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int

    @property
    def key_width(self) -> int:
        """Elements of all keys (and of all queries) of one token."""
        return self.key_heads * self.key_head_dim

    @property
    def value_width(self) -> int:
        """Elements of all values of one token."""
        return self.value_heads * self.value_head_dim

    @property
    def conv_width(self) -> int:
        """Channels of the short convolution: queries, keys and values."""
        return 2 * self.key_width + self.value_width

    @property
    def state_elements(self) -> int:
        """Elements that one DeltaNet layer keeps per sequence, whatever its length.

        The state matrix of every value head, and the last `conv_kernel - 1` inputs of the
        convolution.
        """
        return self.value_heads * self.key_head_dim * self.value_head_dim + self.conv_width * (
            self.conv_kernel - 1
        )


@dataclass(frozen=True, slots=True)
class Widths:
    """The fields of a Shape. Source: the config.json of the checkpoint.

    `intermediate` is the width of one gate or up projection (first-generation configs store twice
    that), 0 where every layer is a mixture and the config has no such width. `context` is the
    config's max_position_embeddings. `task` is what it is built for, which no config.json says.
    `vision` is the tower that is built besides, None for text alone; `image_tokens` the most tokens
    that one picture is to take of the context, 0 for text alone. `audio` is the audio encoder that
    is built besides, `audio_seconds` the longest sound that is taken at once. `draft_layers` are
    those of the draft module for multi-token prediction that is built besides, see
    packager.shape.heads.
    """

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool
    qk_norm: bool
    context: int
    rope_theta: float = 1_000_000.0
    rms_eps: float = 1e-6
    experts: Experts | None = None
    hybrid: Hybrid | None = None
    task: str = "generate"
    vision: Tower | None = None
    image_tokens: int = 0
    audio: AudioTower | None = None
    audio_seconds: int = 0
    draft_layers: int = 0

    def __hash__(self) -> int:
        # Of what shapes mostly differ in: `fit` looks into caches thousands of times, and the other
        # fields would double the time that takes.
        return hash((self.model_type, self.hidden, self.layers, self.vocab, self.context))

    @classmethod
    def from_dict(cls, fields: JsonObject) -> Self:
        """The inverse of dataclasses.asdict, for shapes that crossed a process or a JSON file."""
        # Late: the catalogue is read by commands that need none of it.
        import msgspec

        return msgspec.convert(fields, cls)

    def for_task(self, task: str) -> Self:
        """The same decoder with the end that a task takes: what is built for a vector or a score
        keeps no output matrix, but for two rows of it."""
        return replace(self, task=task, tied=self.tied or task != "generate")

    def seeing(self, tower: Tower, image_tokens: int) -> Self:
        """The same decoder with the tower that gives it pictures, of so many tokens at most."""
        return replace(self, vision=tower, image_tokens=image_tokens)

    def hearing(self, tower: AudioTower, seconds: int) -> Self:
        """The same decoder with the encoder that gives it sound, of so many seconds at once."""
        return replace(self, audio=tower, audio_seconds=seconds)

    @property
    def without_towers(self) -> Self:
        """The text decoder, with its draft module where it has one."""
        if self.vision is None and self.audio is None:
            return self
        return replace(self, vision=None, image_tokens=0, audio=None, audio_seconds=0)

    def drafting(self, layers: int) -> Self:
        """The same decoder with a draft module of so many layers; 0 for none."""
        return self if layers == self.draft_layers else replace(self, draft_layers=layers)

    @property
    def decoder(self) -> Self:
        """The text decoder alone."""
        return self.without_towers.drafting(0)

    @property
    def modality(self) -> str:
        """What comes in besides text: `vision`, `audio`, or `text` for text alone."""
        if self.vision is not None:
            return "vision"
        return "text" if self.audio is None else "audio"

    @property
    def attention_layers(self) -> int:
        """Layers that keep a key-value cache."""
        return self.layers // self.hybrid.interval if self.hybrid else self.layers

    @property
    def recurrent_layers(self) -> int:
        """Layers that keep a state of fixed size instead."""
        return self.layers - self.attention_layers

    @property
    def state_elements(self) -> int:
        """Elements of recurrent state per sequence in all layers; 0 without DeltaNet layers."""
        return self.recurrent_layers * self.hybrid.state_elements if self.hybrid else 0

    @property
    def dense(self) -> bool:
        """No experts and no recurrent layers: what every runtime builds."""
        return self.experts is None and self.hybrid is None

    def full_attention(self, layer: int) -> bool:
        """Whether this layer (counted from 0) has full attention: the last one of every
        interval."""
        return self.hybrid is None or (layer + 1) % self.hybrid.interval == 0


AnyShape = TypeVar("AnyShape", bound=Widths)
"""Widths, or the Shape that is made of them."""
