"""The graph of the audio encoder of Qwen3-ASR, written with openvino's own operators from the sizes
in packager.shape.audio.

The input is the one that ASRPipeline of openvino-genai fills (src/cpp/src/
automatic_speech_recognition/models/qwen3-asr/encoder.cpp): a row of the batch for each second, and
zeros behind the last frame of a sound. The arithmetic is that of packager.reference.audio.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.reference.audio import sinusoids
from packager.shape.audio import (
    CHUNK_FRAMES,
    CHUNK_TOKENS,
    MELS,
    PREFIX,
    WINDOW_CHUNKS,
    AudioTower,
)
from targets.openvino.graph_parts import GraphParts

INPUT, OUTPUT = "input_features", "last_hidden_state"
_EPSILON = 1e-5
_FRAMES_PER_TOKEN = 8
"""Three convolutions of stride 2."""
_UNSEEN = -30_000.0
"""Added to the scores of what nobody is to see: nothing is left of them, and half precision has the
number."""


class EncoderGraph(GraphParts):
    """The graph of the encoder whose tensors `checkpoint` has, by the names of
    `AudioTower.tensors`.

    Raises PackError (bad input) for a tensor that holds NaN or infinity.
    """

    def __init__(self, tower: AudioTower, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, PREFIX)
        self._tower = tower

    def encoder(self) -> Any:
        """openvino.Model: `input_features` (seconds, 128, 100) to `last_hidden_state` (seconds, 13,
        width).

        Eight rows of the batch make a window of attention, in which everything sees everything but
        what is behind the last frame of the sound: the engine fills the last second up with zeros,
        which are no feature of any sound, and hands out as many of its tokens as the frames make.
        """
        # Behind an answer the engine sets an input of no size in all three places.
        ops, given = self._ops, self._parameter(INPUT, [-1, -1, -1])
        chunks = ops.reshape(given, self._numbers([-1, MELS, CHUNK_FRAMES]), False)
        tokens = self._stem(ops.unsqueeze(chunks, self._number(1)))
        count, size, missing = self._windows(chunks)
        state = self._in_windows(tokens, size, missing, self._tower.hidden)
        mask = self._mask(self._in_windows(self._heard(chunks), size, missing, 1))
        for layer in range(self._tower.depth):
            state = self._layer(f"layers.{layer}.", state, mask)
        state = ops.gelu(self._linear("proj1", self._norm("ln_post", state)), "erf")
        state = self._linear("proj2", state)
        rows = ops.reshape(state, self._numbers([-1, CHUNK_TOKENS, self._tower.out]), False)
        first, step = self._numbers([0]), self._numbers([1])
        own = ops.slice(rows, first, count, step, self._numbers([0]))
        return self._model([given], {OUTPUT: own}, "audio_encoder")

    def _stem(self, planes: Any) -> Any:
        """(seconds, 13, hidden) of (seconds, 1, 128, 100): three convolutions over bands and
        frames, and where in its second a token stands."""
        ops, tower = self._ops, self._tower
        for number in (1, 2, 3):
            name, step = f"conv2d{number}", [2, 2]
            weight = self._weight(f"{name}.weight")
            folded = ops.convolution(planes, weight, step, [1, 1], [1, 1], [1, 1])
            bias = self._weight(f"{name}.bias", [1, tower.channels, 1, 1])
            planes = ops.gelu(ops.add(folded, bias), "erf")
        last = ops.transpose(planes, self._numbers([0, 3, 1, 2]))
        flat = ops.reshape(last, self._numbers([0, 0, -1]), True)
        places = sinusoids(CHUNK_TOKENS, tower.hidden)[None]
        return ops.add(self._product("conv_out", flat), ops.constant(places))

    def _windows(self, chunks: Any) -> tuple[Any, Any, Any]:
        """How many seconds there are, how many of them a window has, and how many are missing of
        the last one; (1,) each. Of a sound that is shorter than a window nothing is filled up."""
        ops = self._ops
        count = ops.gather(ops.shape_of(chunks, "i64"), self._numbers([0]), self._number(0))
        size = ops.minimum(count, self._numbers([WINDOW_CHUNKS]))
        over = ops.mod(count, size)
        missing = ops.mod(ops.subtract(size, over), size)
        return count, size, missing

    def _in_windows(self, rows: Any, size: Any, missing: Any, width: int) -> Any:
        """(windows, tokens, width) of (seconds, 13, width), with zeros for missing seconds."""
        ops = self._ops
        nothing = self._numbers([0, 0])
        ends = ops.concat([missing, nothing], 0)
        filled = ops.pad(rows, self._numbers([0, 0, 0]), ends, "constant", self._float(0.0))
        tokens = ops.multiply(size, self._numbers([CHUNK_TOKENS]))
        shape = ops.concat([self._numbers([-1]), tokens, self._numbers([width])], 0)
        return ops.reshape(filled, shape, False)

    def _heard(self, chunks: Any) -> Any:
        """(seconds, 13, 1): 1 for a token whose first frame is one of the sound, else 0. A frame of
        which every band is zero is none: even silence has another value."""
        ops = self._ops
        loudest = ops.reduce_max(ops.abs(chunks), self._numbers([1]), False)
        first = self._numbers(list(range(0, CHUNK_FRAMES, _FRAMES_PER_TOKEN)))
        own = ops.gather(loudest, first, self._number(1))
        heard = ops.convert(ops.greater(own, self._float(0.0)), "f32")
        return ops.unsqueeze(heard, self._number(2))

    def _mask(self, heard: Any) -> Any:
        """(windows, 1, 1, tokens), added to the scores."""
        ops = self._ops
        across = ops.unsqueeze(ops.transpose(heard, self._numbers([0, 2, 1])), self._number(1))
        return ops.multiply(ops.subtract(self._float(1.0), across), self._float(_UNSEEN))

    def _layer(self, name: str, state: Any, mask: Any) -> Any:
        ops = self._ops
        normed = self._norm(f"{name}self_attn_layer_norm", state)
        state = ops.add(state, self._attention(f"{name}self_attn.", normed, mask))
        wide = self._linear(f"{name}fc1", self._norm(f"{name}final_layer_norm", state))
        return ops.add(state, self._linear(f"{name}fc2", ops.gelu(wide, "erf")))

    def _attention(self, name: str, state: Any, mask: Any) -> Any:
        ops, tower = self._ops, self._tower
        shape = self._numbers([0, 0, tower.heads, tower.hidden // tower.heads])
        order = self._numbers([0, 2, 1, 3])
        query, key, value = (
            ops.transpose(
                ops.reshape(self._linear(f"{name}{part}_proj", state), shape, True), order
            )
            for part in "qkv"
        )
        seen = ops.scaled_dot_product_attention(query, key, value, mask)
        flat = ops.reshape(ops.transpose(seen, order), self._numbers([0, 0, tower.hidden]), True)
        return self._linear(f"{name}out_proj", flat)

    def _norm(self, name: str, state: Any) -> Any:
        ops, shape = self._ops, [1, 1, self._tower.hidden]
        normed = ops.mvn(state, self._numbers([-1]), True, _EPSILON, "inside_sqrt")
        scaled = ops.multiply(normed, self._weight(f"{name}.weight", shape))
        return ops.add(scaled, self._weight(f"{name}.bias", shape))


def features_of(mel: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    """(seconds, 128, 100) of features (128, frames) of whole seconds, as the graph takes them."""
    seconds = mel.reshape(MELS, -1, CHUNK_FRAMES).transpose(1, 0, 2)
    return np.ascontiguousarray(seconds, np.float32)
