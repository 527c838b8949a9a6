"""The audio encoder of Qwen2-Audio in float32, over all of its window and over the sound alone.

Source: modeling_qwen2_audio.py of transformers 5.5. The published model hides the frames behind the
sound from attention and drops their tokens; llama.cpp (tools/mtmd/models/whisper-enc.cpp) does
neither. Features are those of packager.reference.audio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from packager.errors import bad_input
from packager.reference.arithmetic import Floats
from packager.reference.audio import AudioEncoder, gelu
from packager.shape.audio import RATE, AudioTower
from packager.shape.whisper import (
    FRAMES,
    PROJECTOR,
    SECONDS,
    published_states,
    published_tokens,
)


def encoder_of(tower: AudioTower, weights: Callable[[str], Floats]) -> AudioEncoder:
    """The encoder of either generation; `weights` gives a tensor by its name behind `audio_tower.`,
    and that of Qwen2-Audio's projector by its whole name."""
    return AudioEncoder(tower, weights) if tower.window is None else WindowEncoder(tower, weights)


class WindowEncoder(AudioEncoder):
    """An encoder with its weights, as `encoder_of` gives it."""

    def filled(self, samples: Floats) -> Floats:
        """The samples with silence up to 30 seconds; what is longer is cut off."""
        whole = np.zeros(SECONDS * RATE, np.float32)
        count = min(len(samples), len(whole))
        whole[:count] = samples[:count]
        return whole

    def embed(self, mel: Floats) -> Floats:
        """(750, width) of features (128, 3000), as the engine computes them. Raises PackError (exit
        code 6) for other frames."""
        return self._projected(self._stem(mel))

    def published(self, mel: Floats, frames: int) -> Floats:
        """(tokens, width) of the first `frames` of the features, as the published model computes
        them: those behind do not take part."""
        tokens = self._projected(self._stem(mel)[: published_states(frames)])
        return tokens[: published_tokens(frames)]

    def _stem(self, mel: Floats) -> Floats:
        """(1500, hidden): two convolutions, and where a state stands."""
        if mel.shape[1] != FRAMES:
            raise bad_input(
                f"A sound of {mel.shape[1]} frames is not a window of {FRAMES}.",
                "Fill it up with silence.",
            )
        state = gelu(self._convolved("conv1", mel, 1))
        state = gelu(self._convolved("conv2", state, 2)).T
        return np.asarray(state + self._weights("embed_positions.weight"), np.float32)

    def _convolved(self, name: str, rows: Floats, stride: int) -> Floats:
        """(out, frames / stride) of (in, frames): 3 frames wide, with a border of nothing."""
        weight, bias = self._weights(f"{name}.weight"), self._weights(f"{name}.bias")
        padded = np.pad(rows, ((0, 0), (1, 1)))
        views: Any = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
        columns = views.transpose(0, 2, 1).reshape(-1, views.shape[1])
        out = weight.reshape(len(weight), -1) @ columns + bias[:, None]
        return np.asarray(out, np.float32)

    def _projected(self, state: Floats) -> Floats:
        for layer in range(self._shape.depth):
            state = self._layer(f"layers.{layer}.", state)
        even = len(state) // 2 * 2
        pairs = state[:even].reshape(-1, 2, state.shape[1]).mean(1)
        weight = self._weights(f"{PROJECTOR}.weight")
        out = self._norm("layer_norm", pairs) @ weight.T + self._weights(f"{PROJECTOR}.bias")
        return np.asarray(out, np.float32)

    def _heads(self, name: str, state: Floats) -> Iterator[Floats]:
        """See AudioEncoder; keys have no bias."""
        for part in "qkv":
            matrix = f"{name}self_attn.{part}_proj"
            wide = state @ self._weights(f"{matrix}.weight").T
            if part != "k":
                wide = wide + self._weights(f"{matrix}.bias")
            yield (
                np.asarray(wide, np.float32)
                .reshape(len(state), self._shape.heads, -1)
                .transpose(1, 0, 2)
            )
