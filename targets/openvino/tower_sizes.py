"""Exact bytes of what an artifact with pictures has besides its decoder: the vision tower, and the
embedding in a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from packager.shape import Shape
from packager.shape.tower import PREFIX, Tower
from targets.openvino import sizes
from targets.openvino.seeing import decoder_of
from targets.openvino.sizes import Compression, Storage

_LEARNED = f"{PREFIX}pos_embed.weight"


def eight_bits(compression: Compression) -> Compression:
    """What is done to tower and embedding where the decoder is compressed: the recipe itself where
    that is of 8 bits, else what it takes for the embedding of a text model."""
    if compression["bits"] == 8:
        return compression
    return {
        "bits": 8,
        "sym": compression["backup_precision"] == "int8_sym",
        "group_size": -1,
        "ratio": 1.0,
    }


@dataclass(frozen=True, slots=True)
class Beside:
    """Bytes in the files of weights, matrices that are compressed, and their scales and zero
    points."""

    tower: int
    embedding: int
    matrices: int
    scales: int
    zero_points: int


def beside(shape: Shape, compression: Compression | None) -> Beside:
    """Of a shape with a vision tower under the settings of a recipe."""
    assert shape.vision is not None
    how = None if compression is None else _storage(eight_bits(compression))
    tower, matrices, scales = _of_tower(shape.vision, how)
    # Not as a recipe with `all_layers` has that of a text model: it is a graph beside the decoder.
    text = decoder_of(shape)
    embedding = 2 * text.vocab * text.hidden if how is None else how.bytes(text.vocab, text.hidden)
    zeros = scales if how is not None and how.zero_points else 0
    return Beside(tower, embedding, matrices, scales, zeros)


def decoder_bytes(text: Shape, compression: Compression | None) -> int:
    """Bytes of the weights of a decoder whose embedding is in a file of its own; a tied output
    matrix is its own copy of that."""
    whole = sizes.totals(text, compression).stored
    return whole if text.tied else whole - sizes.embedding_bytes(text, compression)


def _storage(compression: Compression) -> Storage:
    return Storage(8, None, not compression["sym"])


@lru_cache(maxsize=64)
def _of_tower(tower: Tower, how: Storage | None) -> tuple[int, int, int]:
    """Bytes, compressed matrices and scales. Cached: `fit` asks for every variant many times."""
    stored = matrices = scales = 0
    for name, size in tower.tensors():
        rows, columns = size[0], prod(size[1:])
        if how is None or len(size) < 2 or name == _LEARNED:
            stored += 2 * rows * columns
            continue
        stored += how.bytes(rows, columns)
        matrices += 1
        scales += how.scales(rows, columns)
    return stored, matrices, scales
