"""Exact bytes from a shape: the key-value cache, the recurrent state, and what a footprint is made
of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from types import MappingProxyType

from packager.errors import usage
from packager.json_values import JsonObject
from packager.names import did_you_mean
from packager.shape import Shape

KV_BITS: Mapping[str, float] = MappingProxyType(
    # ggml's block types keep 32 elements and their scales together (ggml-common.h): q8_0 is 34
    # bytes per block. OpenVINO's u8 keeps a float32 scale and zero point per row of 128: 8 + 64 /
    # 128.
    {
        "f32": 32,
        "f16": 16,
        "bf16": 16,
        "q8_0": 8.5,
        "q5_1": 6,
        "q5_0": 5.5,
        "q4_1": 5,
        "q4_0": 4.5,
        "u8": 8.5,
    }
)


@dataclass(frozen=True, slots=True)
class Drafting:
    """Predicted resident bytes of what drafts tokens beside a model: the weights of the draft model
    or of the model's own heads, their cache, what stands between their layers; and `checking`, what
    the model itself takes for several tokens at once: the states that it may have to go back to,
    and logits of each."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    checking: int = 0

    @property
    def total(self) -> int:
        """Bytes beside the model."""
        return self.weights + self.kv_cache + self.compute + self.checking

    def with_model(self, draft: Footprint, states: int = 0) -> Drafting:
        """The same with a draft model in the same process, whose cache holds `states` besides: what
        a recurrent one may have to go back to."""
        return Drafting(
            self.weights + draft.weights,
            self.kv_cache + draft.kv_cache + states,
            # Loading may take more than running, and the model is there by then.
            self.compute + draft.compute + draft.peak - draft.total,
            self.checking,
        )

    def as_dict(self) -> dict[str, int]:
        """The parts, and the total."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Predicted peak resident bytes by component while the model answers a full context.

    `load_peak` is the highest resident size seen on the way there, where loading needs more than
    running. `drafting` is what drafts tokens beside the model; None where nothing does.
    """

    weights: int
    kv_cache: int
    compute: int
    overhead: int
    load_peak: int = 0
    drafting: Drafting | None = None

    @property
    def total(self) -> int:
        """Bytes resident at once in steady state."""
        beside = self.drafting.total if self.drafting else 0
        return self.weights + self.kv_cache + self.compute + self.overhead + beside

    @property
    def peak(self) -> int:
        """What the device must have: the larger of steady state and load."""
        return max(self.total, self.load_peak)

    def as_dict(self) -> JsonObject:
        """The fields of the contract, with the total and the peak."""
        return {
            "weights": self.weights,
            "kv_cache": self.kv_cache,
            "compute": self.compute,
            "overhead": self.overhead,
            **({"drafting": self.drafting.as_dict()} if self.drafting else {}),
            "load_peak": self.load_peak,
            "total": self.total,
            "peak": self.peak,
        }


def kv_bits(kind: str) -> float:
    """Bits per element of a cache type, its scales counted. Raises PackError (usage) for an unknown
    one."""
    if kind not in KV_BITS:
        raise usage(
            f"{kind!r} is not a type of key-value cache.{did_you_mean(kind, KV_BITS)}",
            f"Known: {', '.join(KV_BITS)}.",
        )
    return KV_BITS[kind]


def kv_cache_bytes(shape: Shape, context: int, bits: float = 16) -> int:
    """Bytes that a model keeps about `context` tokens: keys and values, and the recurrent state of
    a hybrid.

    Only layers with full attention keep keys and values, `bits` per element; head_dim is the
    config's own.
    """
    per_token = 2 * shape.attention_layers * shape.kv_heads * shape.head_dim
    return ceil(per_token * context * bits / 8) + recurrent_state_bytes(shape)


def recurrent_state_bytes(shape: Shape) -> int:
    """Bytes of the Gated DeltaNet layers' state in float32, whatever the context; 0 without such
    layers.

    A layer keeps one key_head_dim x value_head_dim matrix per value head, and the last conv_kernel
    - 1 inputs of its convolution over queries, keys and values. Source: Qwen3NextGatedDeltaNet in
    transformers.
    """
    return 4 * shape.state_elements


def logits_bytes(shape: Shape, rows: int = 1) -> int:
    """Bytes of the float32 logits of `rows` tokens: with Qwen's vocabulary often the largest
    compute buffer."""
    return 4 * shape.vocab * rows
