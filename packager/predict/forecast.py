"""Forecast: predicted speed with its range and its confidence, from bytes, operations and two rates
of the device.

Decoding reads every active weight and the cache once per token, so bandwidth bounds it; prefill
multiplies every active weight with every token of the prompt, so arithmetic bounds it (the roofline
model: Williams, Waterman, Patterson, Communications of the ACM 52(4), 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING

from packager.device.target import Confidence
from packager.errors import usage
from packager.predict.sequences import ALONE, Sequences, expert_growth
from packager.shape import Shape

if TYPE_CHECKING:
    from packager.device.target import Device


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the truth may lie from a forecast, as a fraction of it to both sides.

    `fraction` is that of the bytes read per token, `compute` that of a prompt's arithmetic,
    `operations` that of the time beside both, the starts of kernels. `attention` is that of a
    processor's attention for a single token, whose share of the compute was measured on one
    processor alone.
    """

    fraction: float
    compute: float
    operations: float
    attention: float
    reason: str


SPREADS: Mapping[Confidence, Spread] = MappingProxyType(
    {
        "measured": Spread(
            0.15,
            0.2,
            0.2,
            0.4,
            "one bandwidth explains measured decode of Qwen3 0.6B to 8B on a Ryzen 7840HS within "
            "15 %",
        ),
        "same-class": Spread(
            0.17,
            0.25,
            0.25,
            0.5,
            "nine of ten published figures that nothing was fitted to are within this range: "
            "docs/measurements/published.md",
        ),
        "estimated": Spread(
            0.35,
            0.5,
            0.5,
            0.6,
            "a data sheet's bandwidth times a share that kernels reach, between 0.45 and 0.9",
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
    kernels and threads. `attention` is the share of the device's compute that the attention of a
    single token reaches; 0 where reading the cache takes longer than computing with it. In a prompt
    `experts` is the factor on the compute for weights of experts, to each of which few tokens of a
    batch go, `recurrent` the share of the compute that Gated DeltaNet's state reaches (0: not
    counted), and `prompt_operations` the small operations of a batch. `batched` is the share of the
    compute that a decoding step of several sequences reaches. `tower` is the factor on the compute
    for a vision tower, whose weights are kept in other types.
    """

    bandwidth: float = 1.0
    compute: float = 1.0
    operations: float = 0.0
    attention: float = 0.0
    experts: float = 1.0
    recurrent: float = 0.0
    prompt_operations: float = 0.0
    batched: float = 0.5
    tower: float = 1.0


AS_RATED = Speed()


@dataclass(frozen=True, slots=True)
class Extra:
    """Seconds beside the kernels: per token decoded, and per batch of a prompt."""

    token: float = 0.0
    batch: float = 0.0


NO_EXTRA = Extra()


@dataclass(frozen=True, slots=True)
class Range:
    """A forecast figure, and between what the truth is expected."""

    value: float
    low: float
    high: float

    def as_dict(self, name: str) -> dict[str, float]:
        """The fields of a contract, in milliseconds."""
        return {f"{name}_ms": self.value, f"{name}_low_ms": self.low, f"{name}_high_ms": self.high}


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates in tokens per second, time to first token in milliseconds, each with the range in which
    the truth is expected.

    `low` and `high` bound the decode rate, the others say which figure they bound. Ranges are held
    against published rows: four of five lie inside. `confidence` says where the device's bandwidth
    and compute come from: measured here, measured on the same device class, or estimated.

    With `parallel` sequences at once the decode rate is that of each of them. Where all ask at the
    same time, the first waits `ttft_low_ms`, the last `ttft_high_ms`, and `ttft_ms` is the mean.
    `encode` is the part of a picture's or sound's encoder in it, None where none comes in."""

    prefill_tps: float
    decode_tps: float
    ttft_ms: float
    low: float
    high: float
    confidence: Confidence
    prefill_low: float = 0.0
    prefill_high: float = 0.0
    ttft_low_ms: float = 0.0
    ttft_high_ms: float = 0.0
    parallel: int = 1
    encode: Range | None = None

    @property
    def aggregate_tps(self) -> float:
        """Tokens per second of all sequences together."""
        return _rate(self.decode_tps * self.parallel)

    def documents_per_second(self, tokens: int) -> Range:
        """How many texts of so many tokens become vectors or scores in a second."""
        low, high = self.prefill_low or self.prefill_tps, self.prefill_high or self.prefill_tps
        return Range(self.prefill_tps / tokens, low / tokens, high / tokens)

    def text_ms(self, tokens: int) -> Range:
        """Milliseconds for a short text: the weights are read once, its tokens are a prompt's."""

        def time(prefill: float, decode: float) -> float:
            return 1000 * (tokens / prefill + 1 / decode)

        return Range(
            time(self.prefill_tps, self.decode_tps),
            time(self.prefill_high or self.prefill_tps, self.high),
            time(self.prefill_low or self.prefill_tps, self.low),
        )

    def as_dict(self) -> dict[str, float | str]:
        """The fields of the contract; of several sequences and an encoder where there are any."""
        several: dict[str, float | str] = {}
        if self.parallel > 1:
            several = {
                "parallel": self.parallel,
                "aggregate_tps": self.aggregate_tps,
                "aggregate_low": _rate(self.low * self.parallel),
                "aggregate_high": _rate(self.high * self.parallel),
            }
        return {
            "prefill_tps": self.prefill_tps,
            "decode_tps": self.decode_tps,
            "ttft_ms": self.ttft_ms,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "prefill_low": self.prefill_low,
            "prefill_high": self.prefill_high,
            "ttft_low_ms": self.ttft_low_ms,
            "ttft_high_ms": self.ttft_high_ms,
            **(self.encode.as_dict("encode") if self.encode else {}),
            **several,
        }


@dataclass(frozen=True, slots=True)
class _Seconds:
    """A time with the factor by which the truth may be shorter or longer."""

    value: float
    factor: float

    @classmethod
    def of(cls, *parts: tuple[float, float]) -> _Seconds:
        """The sum of (seconds, spread as a fraction of the rate to one side), whose errors are
        independent of each other."""
        total = squares = 0.0
        for seconds, fraction in parts:
            total += seconds
            # A rate that may be a fraction lower takes 1 / (1 - fraction) as long.
            squares += (seconds * (1 / (1 - fraction) - 1)) ** 2
        return cls(total, 1 + sqrt(squares) / total)

    @property
    def shortest(self) -> float:
        return self.value / self.factor

    @property
    def longest(self) -> float:
        return self.value * self.factor

    def milliseconds(self) -> Range:
        return Range(*(round(1000 * one, 3) for one in (self.value, self.shortest, self.longest)))


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


def expert_parameters(shape: Shape) -> int:
    """Weights of the routed experts that one token goes through; 0 without a mixture."""
    if shape.experts is None:
        return 0
    return shape.layers * shape.experts.active * 3 * shape.hidden * shape.experts.intermediate


def recurrent_operations(shape: Shape) -> float:
    """Operations per token of the Gated DeltaNet layers' states: decay, the delta rule and the
    query, each once over the matrix.

    Source: Gated Delta Networks, arXiv:2412.06464, equation 10; a multiply-add counts as two.
    """
    if shape.hybrid is None:
        return 0.0
    matrix = shape.hybrid.value_heads * shape.hybrid.key_head_dim * shape.hybrid.value_head_dim
    return 6.0 * shape.recurrent_layers * matrix


def picture_operations(shape: Shape) -> float:
    """Operations of the vision tower for one picture of `image_tokens`; 0 without a tower."""
    return 0.0 if shape.vision is None else shape.vision.operations(shape.image_tokens)


def sound_operations(shape: Shape) -> float:
    """Operations of the audio encoder for `audio_seconds` of sound; 0 without one."""
    return 0.0 if shape.audio is None else shape.audio.operations(shape.audio_seconds)


def attention_operations(shape: Shape, cached: int) -> float:
    """Operations of one token's attention to `cached` tokens, a multiply-add counting as two: once
    for all queries that share a key head, as engines work through keys and values."""
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
    sequences: Sequences = ALONE,
) -> Forecast:
    """The forecast for one shape, one recipe's `decode_bytes` per token and a prompt of `prompt`
    tokens, which the answer attends to.

    `bandwidth` in bytes per second, `compute` in operations per second, both as kernels reach them.
    The time to first token is the prefill plus one decode step, and one picture or sound where the
    shape has an encoder. Raises PackError (usage) where a rate is not positive.
    """
    if not (0 < bandwidth < float("inf") and 0 < compute < float("inf")):
        raise usage(
            f"No speed follows from a bandwidth of {bandwidth:g} bytes/s and {compute:g} "
            "operations/s.",
            "Give the device's effective bandwidth and compute, both above zero.",
        )
    spread = SPREADS[confidence]
    count = sequences.count
    # The weights are read once for all, the cache of each sequence by itself.
    weights = max(1, decode_bytes - sequences.cache_bytes) * expert_growth(shape, count)
    read = weights + count * sequences.cache_bytes
    attention_s = (
        attention_operations(shape, prompt) / (compute * speed.attention)
        if speed.attention
        else 0.0
    )
    token = _Seconds.of(
        (read / (bandwidth * speed.bandwidth), spread.fraction),
        (extra.token, spread.operations),
        (count * attention_s, spread.attention),
        ((count - 1) * _step_seconds(shape, compute, speed), spread.compute),
    )
    # The time to the first token holds one picture; the rate of a prompt is that of its tokens.
    picture = (picture_operations(shape) + sound_operations(shape)) / (compute * speed.tower)
    seen = _Seconds.of((picture, spread.compute)) if picture else _Seconds(0.0, 1.0)
    reading = _Seconds.of(
        (prompt * _prompt_token_seconds(shape, prompt, compute, speed), spread.compute),
        (extra.batch * ceil(prompt / BATCH), spread.operations),
    )
    # Prompts are computed one after another: of those that ask at once the mean waits for half.
    first = (seen.value + reading.value) * (count + 1) / 2 + token.value
    return Forecast(
        prefill_tps=_rate(prompt / reading.value),
        decode_tps=_rate(1 / token.value),
        ttft_ms=round(1000 * first, 3),
        low=_rate(1 / token.longest),
        high=_rate(1 / token.shortest),
        confidence=confidence,
        prefill_low=_rate(prompt / reading.longest),
        prefill_high=_rate(prompt / reading.shortest),
        ttft_low_ms=round(1000 * (seen.shortest + reading.shortest + token.shortest), 3),
        ttft_high_ms=round(1000 * (count * (seen.longest + reading.longest) + token.longest), 3),
        parallel=count,
        encode=seen.milliseconds() if picture else None,
    )


def _rate(value: float) -> float:
    """Three decimals, or three digits: what is slow is not still."""
    return round(value, 3) if value >= 0.1 else float(f"{value:.3g}")


def _step_seconds(shape: Shape, compute: float, speed: Speed) -> float:
    """Seconds that one sequence more adds to a decoding step: the products of its token."""
    active = shape.active_parameters() - (0 if shape.tied else shape.vocab * shape.hidden)
    return 2.0 * active / (compute * speed.compute * speed.batched)


def _prompt_token_seconds(shape: Shape, prompt: int, compute: float, speed: Speed) -> float:
    """Seconds for one token of a prompt on average."""
    operations = max(1.0, prefill_operations(shape, prompt))
    experts = 2.0 * expert_parameters(shape)
    seconds = (operations - experts + experts / speed.experts) / (compute * speed.compute)
    if speed.recurrent:
        seconds += recurrent_operations(shape) / (compute * speed.recurrent)
    return seconds


def predict_on(
    shape: Shape,
    decode_bytes: int,
    prompt: int,
    device: Device,
    speed: Speed,
    extra: Extra = NO_EXTRA,
    confidence: Confidence | None = None,
    sequences: Sequences = ALONE,
) -> Forecast:
    """`predict` with a device's rates; the small operations of a step are added where the device
    says what one takes."""
    seconds = device.operation_seconds or 0.0
    beside = Extra(
        extra.token + speed.operations * seconds, extra.batch + speed.prompt_operations * seconds
    )
    return predict(
        shape,
        decode_bytes,
        prompt,
        device.bandwidth,
        device.compute,
        confidence or device.confidence,
        speed,
        beside,
        sequences,
    )
