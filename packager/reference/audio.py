"""The audio encoder of Qwen3-ASR in float32: from samples to what the decoder gets in place of its
tokens.

Sources: WhisperFeatureExtractor of transformers 5.5 (features); modeling_qwen3_asr.py of
QwenLM/Qwen3-ASR, whose attention reaches over windows of eight seconds (cu_seqlens).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from packager.errors import bad_input
from packager.reference.arithmetic import Floats, softmax

VERSION = 1
"""Raised when the same weights would give other numbers."""

_RATE, _HOP, _FRAME, _MELS = 16_000, 160, 400, 128
_CHUNK, _WINDOW = 100, 8
"""Frames that the convolutions take at once, and chunks that attention reaches over."""
_EPSILON = 1e-5
_FLOOR = 1e-10


class EncoderShape(Protocol):
    """The widths that the computation takes."""

    @property
    def hidden(self) -> int:
        """Width of a state."""

    @property
    def depth(self) -> int:
        """Layers."""

    @property
    def heads(self) -> int:
        """Heads of a layer."""


def features(samples: Floats) -> Floats:
    """(128, frames) of log-mel features: a frame per 160 samples, 160 or more of them.

    The sound is reflected at both ends, the last frame left out, values below the largest less 8
    raised to that, then scaled (Whisper's log_mel_spectrogram).
    """
    half = _FRAME // 2
    padded = np.pad(samples.astype(np.float64), half, mode="reflect")
    count = len(samples) // _HOP
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP][:count]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mel = np.log10(np.maximum(_filters() @ power.T, _FLOOR))
    mel = (np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0
    return np.asarray(mel, np.float32)


@cache
def _filters() -> npt.NDArray[np.float64]:
    """(128, 201): triangles on Slaney's mel scale up to 8 kHz, of one area."""
    hertz = np.linspace(0, _RATE / 2, _FRAME // 2 + 1)
    edges = _hertz(np.linspace(0.0, _mel(_RATE / 2), _MELS + 2))
    widths = np.diff(edges)
    ramps = edges[:, None] - hertz
    lower, upper = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(lower, upper))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None])


def _mel(hertz: float) -> float:
    return 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = 1000.0 * np.exp((mel - 15.0) * (math.log(6.4) / 27.0))
    return np.where(mel >= 15.0, above, mel * (200.0 / 3.0))


class AudioEncoder:
    """An encoder with its weights. `weights` gives a tensor by its name behind `audio_tower.`."""

    def __init__(self, shape: EncoderShape, weights: Callable[[str], Floats]) -> None:
        self._shape, self._weights = shape, weights

    def filled(self, samples: Floats) -> Floats:
        """The samples with the silence that the encoder takes behind them: none here."""
        return samples

    def embed(self, mel: Floats) -> Floats:
        """(tokens, width) of features (128, frames): 13 of each second. Raises PackError (exit code
        6) for frames that are not whole seconds."""
        frames = mel.shape[1]
        if not frames or frames % _CHUNK:
            raise bad_input(
                f"A sound of {frames} frames is not whole seconds of {_CHUNK}.",
                "Fill it up with silence.",
            )
        chunks = mel.reshape(_MELS, -1, _CHUNK).transpose(1, 0, 2)
        parts = [
            self._window(chunks[start : start + _WINDOW])
            for start in range(0, len(chunks), _WINDOW)
        ]
        return np.concatenate(parts)

    def _window(self, chunks: Floats) -> Floats:
        """Chunks (n, 128, 100) that see one another."""
        state = np.concatenate([self._stem(chunk) for chunk in chunks])
        for layer in range(self._shape.depth):
            state = self._layer(f"layers.{layer}.", state)
        state = self._norm("ln_post", state)
        return self._linear("proj2", gelu(self._linear("proj1", state)))

    def _stem(self, chunk: Floats) -> Floats:
        """(13, hidden) of a second: three convolutions, and where a token stands in the second."""
        planes = chunk[None]
        for number in (1, 2, 3):
            name = f"conv2d{number}"
            planes = gelu(
                _convolved(planes, self._weights(f"{name}.weight"), self._weights(f"{name}.bias"))
            )
        channels, bands, width = planes.shape
        flat = planes.transpose(2, 0, 1).reshape(width, channels * bands)
        state = flat @ self._weights("conv_out.weight").T
        return np.asarray(state + sinusoids(width, self._shape.hidden), np.float32)

    def _layer(self, name: str, state: Floats) -> Floats:
        state = state + self._attention(name, self._norm(f"{name}self_attn_layer_norm", state))
        inner = gelu(self._linear(f"{name}fc1", self._norm(f"{name}final_layer_norm", state)))
        return np.asarray(state + self._linear(f"{name}fc2", inner), np.float32)

    def _attention(self, name: str, state: Floats) -> Floats:
        heads = self._shape.heads
        query, key, value = self._heads(name, state)
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(self._shape.hidden // heads)
        mixed = softmax(np.asarray(scores, np.float32)) @ value
        return self._linear(
            f"{name}self_attn.out_proj", mixed.transpose(1, 0, 2).reshape(state.shape)
        )

    def _heads(self, name: str, state: Floats) -> Iterator[Floats]:
        """(heads, tokens, width) of queries, keys and values."""
        for part in "qkv":
            wide = self._linear(f"{name}self_attn.{part}_proj", state)
            yield wide.reshape(len(state), self._shape.heads, -1).transpose(1, 0, 2)

    def _linear(self, name: str, state: Floats) -> Floats:
        out = state @ self._weights(f"{name}.weight").T + self._weights(f"{name}.bias")
        return np.asarray(out, np.float32)

    def _norm(self, name: str, state: Floats) -> Floats:
        centred = state - state.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + _EPSILON)
        out = scaled * self._weights(f"{name}.weight") + self._weights(f"{name}.bias")
        return np.asarray(out, np.float32)


def _convolved(planes: Floats, weight: Floats, bias: Floats) -> Floats:
    """(out, height / 2, width / 2) of planes (in, height, width): 3 x 3, stride 2, a border of
    nothing."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    views: Any = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    views = views[:, ::2, ::2]
    _, height, width = views.shape[:3]
    columns = views.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)
    out = weight.reshape(len(weight), -1) @ columns + bias[:, None]
    return np.asarray(out.reshape(-1, height, width), np.float32)


def sinusoids(count: int, width: int) -> Floats:
    """(count, width) of the places of tokens in their second: sines, then cosines."""
    half = width // 2
    scales = np.exp(-np.log(10_000.0) / (half - 1) * np.arange(half))
    angles = np.arange(count)[:, None] * scales
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def gelu(values: Floats) -> Floats:
    """The exact one, by an approximation of the error function that is good to 1.5e-7 (Abramowitz
    and Stegun 7.1.26)."""
    x = np.abs(values, dtype=np.float64) / math.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * x)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.sign(values) * (1.0 - series * np.exp(-x * x))
    return np.asarray(0.5 * values * (1.0 + erf), np.float32)
