"""Exact bytes of the audio encoder of an artifact that takes sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from packager.shape.audio import CHUNK_TOKENS, AudioTower
from targets.openvino.sizes import Compression, Storage
from targets.openvino.tower_sizes import eight_bits

_CONVOLUTION = 4
"""Sizes of a kernel over planes, which keeps 16 bits."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Bytes in the file of weights, matrices that are compressed, and their scales."""

    stored: int
    matrices: int
    scales: int
    zero_points: int


def encoder(tower: AudioTower, compression: Compression | None) -> Encoder:
    """Under the settings of a recipe: in 8 bits where that compresses the decoder."""
    if compression is None:
        return _stored(tower, None)
    return _stored(tower, Storage(8, None, not eight_bits(compression)["sym"]))


@lru_cache(maxsize=64)
def _stored(tower: AudioTower, how: Storage | None) -> Encoder:
    """Cached: `fit` asks for every variant many times."""
    # The places of the tokens of a second, in float32.
    stored, matrices, scales = 4 * CHUNK_TOKENS * tower.hidden, 0, 0
    for _, size in tower.tensors():
        if how is None or len(size) in (1, _CONVOLUTION):
            stored += 2 * prod(size)
            continue
        rows, columns = size[0], prod(size[1:])
        stored += how.bytes(rows, columns)
        matrices += 1
        scales += how.scales(rows, columns)
    zeros = scales if how is not None and how.zero_points else 0
    return Encoder(stored, matrices, scales, zeros)
