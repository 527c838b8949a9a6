"""Forecast: predicted speed with its range and its confidence, from bytes, operations and two rates
of the device.

Decoding reads every active weight and the cache once per token, so bandwidth bounds it; prefill
multiplies every active weight with every token of the prompt, so arithmetic bounds it (the roofline
model: Williams, Waterman, Patterson, Communications of the ACM 52(4), 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING

from packager.device.target import Confidence
from packager.errors import usage
from packager.shape import Shape

if TYPE_CHECKING:
    from packager.device.target import Device


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the truth may lie from a forecast, as a fraction of it to both sides."""

    fraction: float
    reason: str


SPREADS: Mapping[Confidence, Spread] = MappingProxyType(
    {
        "measured": Spread(
            0.15,
            "one bandwidth explains measured decode of Qwen3 0.6B to 8B on a Ryzen 7840HS within "
            "15 %",
        ),
        "same-class": Spread(
            0.35,
            "memory channels, clock and cooling differ within a class: 38 to 48 GB/s on one Ultra "
            "7 155H",
        ),
        "estimated": Spread(
            0.60,
            "a data sheet's bandwidth times a share that kernels reach, which lies between 0.4 and "
            "0.9",
        ),
    }
)


BATCH = 512
"""Tokens of a prompt that an engine computes at once."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How an engine runs one shape in one recipe, against the rates of a device, which are those of
    llama.cpp with Q4_K weights.

    `bandwidth` and `compute` are factors on the device's; `operations` counts the small operations
    of a decoding step in units of the device's `operation_seconds`: norms, rotations, the starts of
    threads. `attention` is the share of the device's compute that the attention of a single token
    reaches; 0 where reading the cache takes longer than computing with it.
    """

    bandwidth: float = 1.0
    compute: float = 1.0
    operations: float = 0.0
    attention: float = 0.0


AS_RATED = Speed()


@dataclass(frozen=True, slots=True)
class Extra:
    """Seconds beside the kernels: per token decoded, and per batch of a prompt."""

    token: float = 0.0
    batch: float = 0.0


NO_EXTRA = Extra()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates in tokens per second, time to first token in milliseconds.

    `low` and `high` bound the decode rate. `confidence` says where the device's bandwidth and
    compute come from: measured here, measured on the same device class, or estimated.
    """

    prefill_tps: float
    decode_tps: float
    ttft_ms: float
    low: float
    high: float
    confidence: Confidence

    def as_dict(self) -> dict[str, float | str]:
        """The fields of the contract."""
        return {
            "prefill_tps": self.prefill_tps,
            "decode_tps": self.decode_tps,
            "ttft_ms": self.ttft_ms,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
        }


def prompt_parameters(shape: Shape) -> int:
    """Weights that multiply every token of a prompt: those one token touches, without embedding and
    output matrix.

    The embedding is a lookup, and the output matrix works on the last token of a prompt only.
    """
    return shape.active_parameters() - shape.vocab * shape.hidden * (1 if shape.tied else 2)


def prefill_operations(shape: Shape, prompt: int) -> float:
    """Floating-point operations per token of a prompt (a multiply-add counts as two), attention
    included.

    A token attends to half of the prompt on average: queries with keys, and weights with values.
    """
    attention = 2 * shape.attention_layers * shape.heads * shape.head_dim * prompt
    return 2.0 * prompt_parameters(shape) + attention


def attention_operations(shape: Shape, cached: int) -> float:
    """Operations of one token's attention to `cached` tokens, once for all queries that share a key
    head; a multiply-add counts as two.

    What takes the time is the keys and values: engines work through them once for a group of
    queries.
    """
    return 4.0 * shape.attention_layers * shape.kv_heads * shape.head_dim * cached


def predict(
    shape: Shape,
    decode_bytes: int,
    prompt: int,
    bandwidth: float,
    compute: float,
    confidence: Confidence,
    speed: Speed = AS_RATED,
    extra: Extra = NO_EXTRA,
) -> Forecast:
    """The forecast for one shape, one recipe's `decode_bytes` per token and a prompt of `prompt`
    tokens, which the answer attends to.

    `bandwidth` in bytes per second, `compute` in operations per second, both as kernels reach them.
    The time to first token is the prefill plus one decode step. Raises PackError (usage) where a
    rate is not positive.
    """
    if not (0 < bandwidth < float("inf") and 0 < compute < float("inf")):
        raise usage(
            f"No speed follows from a bandwidth of {bandwidth:g} bytes/s and {compute:g} "
            "operations/s.",
            "Give the device's effective bandwidth and compute, both above zero.",
        )
    token_s = max(1, decode_bytes) / (bandwidth * speed.bandwidth) + extra.token
    if speed.attention:
        token_s += attention_operations(shape, prompt) / (compute * speed.attention)
    prompt_s = prompt * max(1.0, prefill_operations(shape, prompt)) / (
        compute * speed.compute
    ) + extra.batch * ceil(prompt / BATCH)
    decode, spread = 1 / token_s, SPREADS[confidence].fraction
    return Forecast(
        prefill_tps=round(prompt / prompt_s, 3),
        decode_tps=round(decode, 3),
        ttft_ms=round(1000 * (prompt_s + token_s), 3),
        low=round(decode * (1 - spread), 3),
        high=round(decode * (1 + spread), 3),
        confidence=confidence,
    )


def predict_on(
    shape: Shape,
    decode_bytes: int,
    prompt: int,
    device: Device,
    speed: Speed,
    extra: Extra = NO_EXTRA,
    confidence: Confidence | None = None,
) -> Forecast:
    """`predict` with a device's rates; the small operations of a step are added where the device
    says what one takes."""
    step = speed.operations * (device.operation_seconds or 0.0)
    beside = Extra(extra.token + step, extra.batch)
    return predict(
        shape,
        decode_bytes,
        prompt,
        device.bandwidth,
        device.compute,
        confidence or device.confidence,
        speed,
        beside,
    )
