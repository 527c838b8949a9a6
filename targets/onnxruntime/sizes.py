"""Exact bytes of an artifact's weights from a shape and a recipe's settings: what the model builder
writes per tensor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil

from packager.shape import Shape
from targets.onnxruntime.quantization import Quantization, Settings


def weight_bytes(shape: Shape, settings: Settings) -> int:
    """Size of model.onnx.data, to the byte: every tensor, packed without gaps."""
    embedding = 0 if shares_embedding(shape) else embedding_bytes(shape, settings)
    return embedding + _read_always(shape, settings) + rotary_bytes(shape, settings)


def weights_read(shape: Shape, settings: Settings) -> int:
    """Bytes of weights read for one token: all matrices; of embedding and rotary tables only one
    row, which is left out."""
    head = 0 if shape.task == "generate" else head_bytes(shape, settings)
    return _read_always(shape, settings) - head


def shares_embedding(shape: Shape) -> bool:
    """Whether the embedding is a view of the output matrix. Sharing them in an untied model would
    break it."""
    return shape.tied


def quantizes_embedding(settings: Settings) -> bool:
    """Whether an untied embedding is quantized: to 4 bits where the layers are, as the engine looks
    up no other."""
    return settings.quantization is not None and settings.quantization.bits == 4


def embedding_bytes(shape: Shape, settings: Settings) -> int:
    """Bytes of an embedding of its own."""
    quantization = settings.quantization
    if quantization is None or not quantizes_embedding(settings):
        return shape.vocab * shape.hidden * settings.number_bytes
    blocks = shape.vocab * quantization.blocks(shape.hidden)
    zero_points = ceil(blocks / 2) if quantization.zero_points else 0
    # No padding here: the last block of a row may be short.
    return ceil(shape.vocab * shape.hidden / 2) + blocks * settings.number_bytes + zero_points


def head_bytes(shape: Shape, settings: Settings) -> int:
    """Bytes of the output matrix."""
    how = settings.quantization
    return _matrix(how, how.head_bits if how else 0, shape.vocab, shape.hidden, settings)


def rotary_bytes(shape: Shape, settings: Settings) -> int:
    """The tables of sines and cosines for the whole context that the model was trained for."""
    return 2 * shape.context * (shape.head_dim // 2) * settings.number_bytes


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of the matrices of one layer; queries, keys and values are one, except
    for DirectML, which changes no size."""
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "qkv_proj", query + 2 * key_value, shape.hidden
    yield "o_proj", shape.hidden, query
    yield "gate_proj", shape.intermediate, shape.hidden
    yield "up_proj", shape.intermediate, shape.hidden
    yield "down_proj", shape.hidden, shape.intermediate


def quantized_weights(shape: Shape) -> int:
    """How many weights go through the quantizer: all matrices, the output matrix included."""
    return (
        shape.layers * sum(rows * columns for _, rows, columns in matrices(shape))
        + shape.vocab * shape.hidden
    )


def quantized_blocks(shape: Shape, settings: Settings) -> float:
    """How many blocks of weights share a scale; none where nothing is quantized."""
    layers, head = settings.layers, settings.quantization
    in_head = shape.vocab * shape.hidden
    in_layers = quantized_weights(shape) - in_head
    return (in_layers / layers.block if layers else 0) + (in_head / head.block if head else 0)


@lru_cache(maxsize=1024)
def _read_always(shape: Shape, settings: Settings) -> int:
    number = settings.number_bytes
    vectors = 2 * shape.hidden
    if shape.qkv_bias:
        vectors += (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    if shape.qk_norm:
        vectors += 2 * shape.head_dim
    how = settings.layers
    in_layers = sum(
        count * _matrix(how, bits, rows, columns, settings)
        for name, rows, columns in matrices(shape)
        for bits, count in (how.layers_by_bits(shape.layers, name) if how else ((0, shape.layers),))
    )
    in_layers += shape.layers * vectors * number
    return in_layers + shape.hidden * number + head_bytes(shape, settings)


def _matrix(
    how: Quantization | None, bits: int, rows: int, columns: int, settings: Settings
) -> int:
    if how is None:
        return rows * columns * settings.number_bytes
    return how.matrix_bytes(rows, columns, bits, settings.number_bytes)
