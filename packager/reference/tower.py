"""The vision tower of Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni, Qwen3-VL and Qwen3.5 in float32: from the
pixels of a picture to what the decoder gets in place of its tokens.

Source: transformers 5.5 (models/qwen2_vl, qwen2_5_vl, qwen2_5_omni, qwen3_vl, qwen3_5), eager
attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from packager.errors import bad_input
from packager.reference.arithmetic import Floats, rms_norm, sigmoid, silu, softmax

VERSION = 1
"""Raised when the same weights would give other numbers."""

_MERGE, _FRAMES, _WINDOW = 2, 2, 112
"""Patches of a side that become one token, pictures that are taken together, pixels of a side of
Qwen2.5-VL's windows."""
_WINDOWED = ("qwen2_5_vl", "qwen2_5_omni")
_EPSILON = 1e-6
_THETA = 10_000.0


class TowerShape(Protocol):
    """The widths that the computation takes; the names are those of a vision_config, but for
    `generation` (qwen2_vl, qwen2_5_vl, qwen2_5_omni or qwen3_vl), `positions` (learned ones, a
    square number or 0), `deepstack` and `full_attention` (layers)."""

    @property
    def generation(self) -> str:
        """Which network."""

    @property
    def hidden(self) -> int:
        """Width of a patch."""

    @property
    def depth(self) -> int:
        """Layers."""

    @property
    def heads(self) -> int:
        """Heads of a layer."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""

    @property
    def positions(self) -> int:
        """Learned positions."""

    @property
    def deepstack(self) -> tuple[int, ...]:
        """Layers whose states go to the decoder besides."""

    @property
    def full_attention(self) -> tuple[int, ...]:
        """Layers that look beyond their window; none for networks without windows."""


class VisionTower:
    """A tower with its weights. `weights` gives a tensor by its name behind `visual.`, `mean` and
    `deviation` are those of red, green and blue between 0 and 1."""

    def __init__(
        self,
        shape: TowerShape,
        weights: Callable[[str], Floats],
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        self._shape, self._weights = shape, weights
        self._mean = np.asarray(mean, np.float32)
        self._deviation = np.asarray(deviation, np.float32)

    def embed(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """(tokens, width x (1 + layers of DeepStack)) of a picture (height, width, 3), whose sides
        are whole tokens. Raises PackError (exit code 6) for other sides."""
        shape = self._shape
        rows, columns = self._grid(pixels)
        state = self._patches(pixels)
        if shape.positions:
            state = state + self._learned(rows, columns)
        angles = _angles(rows, columns, shape.hidden // shape.heads)
        windows = _windows(rows, columns, _WINDOW // (shape.patch * _MERGE))
        deep: list[Floats] = []
        for layer in range(shape.depth):
            apart = bool(shape.full_attention) and layer not in shape.full_attention
            state = self._block(layer, state, angles, windows if apart else None)
            if layer in shape.deepstack:
                name = f"deepstack_merger_list.{len(deep)}"
                deep.append(self._merged(name, state, together=True))
        return np.concatenate([self._merged("merger", state, together=False), *deep], axis=-1)

    def _grid(self, pixels: npt.NDArray[np.uint8]) -> tuple[int, int]:
        side = self._shape.patch * _MERGE
        height, width, _ = pixels.shape
        if height % side or width % side:
            raise bad_input(
                f"A picture of {width} x {height} pixels is not whole tokens of {side} x {side}.",
                "Take one whose sides are multiples of that.",
            )
        return height // self._shape.patch, width // self._shape.patch

    def _patches(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """(patches, hidden), the four of a token behind one another; one picture counts twice."""
        patch = self._shape.patch
        rows, columns = self._grid(pixels)
        values = (pixels.astype(np.float32) / 255 - self._mean) / self._deviation
        values = values.reshape(
            rows // _MERGE, _MERGE, patch, columns // _MERGE, _MERGE, patch, 3
        ).transpose(0, 3, 1, 4, 6, 2, 5)
        flat = values.reshape(rows * columns, 3, 1, patch, patch)
        flat = np.repeat(flat, _FRAMES, axis=2).reshape(rows * columns, -1)
        kernel = self._weights("patch_embed.proj.weight")
        state = flat @ kernel.reshape(len(kernel), -1).T
        if self._shape.generation == "qwen3_vl":
            state = state + self._weights("patch_embed.proj.bias")
        return np.asarray(state, np.float32)

    def _learned(self, rows: int, columns: int) -> Floats:
        """(patches, hidden): the learned grid of positions, stretched over the picture."""
        table = self._weights("pos_embed.weight")
        side = math.isqrt(self._shape.positions)
        table = table.reshape(side, side, -1)
        low_y, high_y, part_y = _between(rows, side)
        low_x, high_x, part_x = _between(columns, side)
        part_y, part_x = part_y[:, None, None], part_x[None, :, None]
        upper = table[low_y][:, low_x] * (1 - part_x) + table[low_y][:, high_x] * part_x
        lower = table[high_y][:, low_x] * (1 - part_x) + table[high_y][:, high_x] * part_x
        return _in_tokens(np.asarray(upper * (1 - part_y) + lower * part_y, np.float32))

    def _block(
        self,
        layer: int,
        state: Floats,
        angles: tuple[Floats, Floats],
        windows: Sequence[npt.NDArray[np.intp]] | None,
    ) -> Floats:
        name = f"blocks.{layer}"
        state = state + self._attention(
            f"{name}.attn", self._norm(f"{name}.norm1", state), angles, windows
        )
        return state + self._feed_forward(f"{name}.mlp", self._norm(f"{name}.norm2", state))

    def _attention(
        self,
        name: str,
        state: Floats,
        angles: tuple[Floats, Floats],
        windows: Sequence[npt.NDArray[np.intp]] | None,
    ) -> Floats:
        heads = self._shape.heads
        width = self._shape.hidden // heads
        cosine, sine = angles
        first, second, value = (
            part.reshape(len(state), heads, width) for part in self._projected(name, state)
        )
        query, key = (_turned(part, cosine, sine) for part in (first, second))
        out = np.empty_like(value)
        for group in windows if windows is not None else [np.arange(len(state))]:
            for head in range(heads):
                scores = query[group, head] @ key[group, head].T / np.float32(math.sqrt(width))
                out[group, head] = softmax(scores) @ value[group, head]
        return self._linear(f"{name}.proj", out.reshape(len(state), -1))

    def _projected(self, name: str, state: Floats) -> list[Floats]:
        """Queries, keys and values, each (patches, hidden)."""
        if self._shape.generation == "qwen2_5_omni":
            return [self._linear(f"{name}.{part}", state) for part in "qkv"]
        return np.split(self._linear(f"{name}.qkv", state), 3, axis=-1)

    def _feed_forward(self, name: str, state: Floats) -> Floats:
        if self._shape.generation in _WINDOWED:
            gate = silu(self._linear(f"{name}.gate_proj", state))
            return self._linear(f"{name}.down_proj", gate * self._linear(f"{name}.up_proj", state))
        if self._shape.generation == "qwen2_vl":
            wide = self._linear(f"{name}.fc1", state)
            return self._linear(f"{name}.fc2", wide * sigmoid(np.float32(1.702) * wide))
        wide = self._linear(f"{name}.linear_fc1", state)
        return self._linear(f"{name}.linear_fc2", _gelu_tanh(wide))

    def _merged(self, name: str, state: Floats, *, together: bool) -> Floats:
        """(tokens, out): the four patches of each token as one. `together` says that they are
        normed as one, as for DeepStack."""
        third = self._shape.generation == "qwen3_vl"
        norm, first, second = (
            ("norm", "linear_fc1", "linear_fc2") if third else ("ln_q", "mlp.0", "mlp.2")
        )
        tokens = len(state) // _MERGE**2
        if together:
            state = self._norm(f"{name}.{norm}", state.reshape(tokens, -1))
        else:
            state = self._norm(f"{name}.{norm}", state).reshape(tokens, -1)
        return self._linear(f"{name}.{second}", _gelu(self._linear(f"{name}.{first}", state)))

    def _norm(self, name: str, state: Floats) -> Floats:
        weight = self._weights(f"{name}.weight")
        if self._shape.generation in _WINDOWED:
            return rms_norm(state, weight, _EPSILON)
        centred = state - state.mean(-1, keepdims=True, dtype=np.float32)
        variance = np.square(centred).mean(-1, keepdims=True, dtype=np.float32)
        normed = centred / np.sqrt(variance + np.float32(_EPSILON))
        return np.asarray(normed * weight + self._weights(f"{name}.bias"), np.float32)

    def _linear(self, name: str, state: Floats) -> Floats:
        product = state @ self._weights(f"{name}.weight").T + self._weights(f"{name}.bias")
        return np.asarray(product, np.float32)


def _in_tokens(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(rows, columns, ...) of patches as (patches, ...), the four of a token behind one another."""
    rows, columns = values.shape[:2]
    rest = values.shape[2:]
    values = values.reshape(rows // _MERGE, _MERGE, columns // _MERGE, _MERGE, *rest)
    return values.swapaxes(1, 2).reshape(rows * columns, *rest)


def _between(count: int, side: int) -> tuple[Any, Any, Floats]:
    """Where `count` patches lie on a grid of `side` places: the place below, the one above, and how
    far they are from the one to the other."""
    place = np.linspace(0, side - 1, count, dtype=np.float32)
    low = place.astype(np.intp)
    return low, np.minimum(low + 1, side - 1), (place - low).astype(np.float32)


def _angles(rows: int, columns: int, width: int) -> tuple[Floats, Floats]:
    """Cosine and sine (patches, width / 2) by which pairs of a head's elements are turned: the
    first half of them by the row, the other by the column."""
    each = width // 4
    rates = 1 / _THETA ** (np.arange(each, dtype=np.float32) / each)
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
    turns = (_in_tokens(grid).astype(np.float32)[:, :, None] * rates).reshape(rows * columns, -1)
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def _turned(heads: Floats, cosine: Floats, sine: Floats) -> Floats:
    """(patches, heads, width): element i turned with element i + width / 2."""
    first, second = np.split(heads, 2, axis=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def _windows(rows: int, columns: int, side: int) -> list[npt.NDArray[np.intp]]:
    """The numbers of the patches of each window of `side` x `side` tokens, from the upper left."""
    place = np.add.outer(
        np.arange(rows) // (_MERGE * side) * columns, np.arange(columns) // (_MERGE * side)
    )
    numbers = _in_tokens(place)
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _gelu_tanh(x: Floats) -> Floats:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.asarray(np.float32(0.5) * x * (1 + np.tanh(inner)), np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float32])


def _gelu(x: Floats) -> Floats:
    """The exact one. Numpy has no error function; there are few of these."""
    return np.asarray(np.float32(0.5) * x * (1 + _erf(x / np.float32(math.sqrt(2)))), np.float32)
