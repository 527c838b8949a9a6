"""Weights of 4 bits as bitsandbytes stores them (NF4, FP4): numbers that name an entry of a table
of 16, times the largest magnitude of their block.

Layout after bitsandbytes, functional.py (QuantState.as_dict, dequantize_4bit): the numbers of the
whole matrix row by row, two a byte, the upper half first; blocks run through the rows; what
describes them is JSON in a tensor of bytes. With double quantization the magnitudes are numbers of
8 bits, which name an entry of a table of 256, times a scale for a run of them, and an offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from packager.checkpoint.header import TensorInfo
from packager.checkpoint.numbers import read
from packager.foreign import parse_json

KINDS = ("nf4", "fp4")
STATE = "weight.quant_state.bitsandbytes__"
BESIDE = (
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    *(f"{STATE}{kind}" for kind in KINDS),
)
"""What stands beside a matrix, after the name of its layer."""
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_TABLE, _MAGNITUDES = 16, 256
_STATE_BYTES = 1 << 12
"""More than any description of one matrix takes."""
_LARGEST_SIDE = 1 << 31


class Refuses(Protocol):
    """Raises the sentence for a checkpoint that `what` is wrong with."""

    def __call__(self, what: str) -> NoReturn:
        """Raise PackError (exit code 6)."""


@dataclass(frozen=True, slots=True)
class Nested:
    """Magnitudes that are quantized: `scales` of `block` of them each, the `table` that they are
    entries of, and what is added."""

    scales: TensorInfo
    table: TensorInfo
    block: int
    offset: float


@dataclass(frozen=True, slots=True)
class Blockwise:
    """`weight` (elements / 2, 1) bytes, `largest` (blocks), `table` (16)."""

    weight: TensorInfo
    largest: TensorInfo
    table: TensorInfo
    nested: Nested | None
    block: int
    columns: int

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """See packager.checkpoint.header.Rows."""
        start, stop = first * self.columns, end * self.columns
        stored = read(self.weight, slice(start // 2, -(-stop // 2))).reshape(-1)
        numbers = np.stack((stored >> 4, stored & 15), axis=1).reshape(-1)
        numbers = numbers[start % 2 : start % 2 + stop - start]
        blocks = slice(start // self.block, -(-stop // self.block))
        of_block = np.arange(start, stop) // self.block - blocks.start
        values: npt.NDArray[np.float32] = read(self.table)[numbers]
        values *= self._largest(blocks)[of_block]
        return values.reshape(end - first, self.columns)

    def _largest(self, blocks: slice) -> npt.NDArray[np.float32]:
        stored, nested = read(self.largest, blocks), self.nested
        if nested is None:
            return stored
        runs = np.arange(blocks.start, blocks.start + len(stored)) // nested.block
        magnitudes = read(nested.table)[stored] * read(nested.scales)[runs]
        return np.asarray(magnitudes + np.float32(nested.offset), np.float32)


def of(
    module: str, weight: TensorInfo, stored: Mapping[str, TensorInfo], refuse: Refuses
) -> tuple[Blockwise, tuple[int, ...], str] | None:
    """The matrix of a layer, its shape, and its layout in words; None where nothing says that it is
    quantized so."""
    kind = next((kind for kind in KINDS if f"{module}.{STATE}{kind}" in stored), None)
    if kind is None:
        return None
    state = _state(stored[f"{module}.{STATE}{kind}"], refuse)
    shape = _shape(weight, state, refuse)
    block = state.get("blocksize")
    if type(block) is not int or block not in _BLOCKS:
        refuse(f"says blocksize {block!r} for {weight.name!r}")
    count = -(-math.prod(shape) // block)
    nested = _nested(module, stored, state, count, refuse)
    largest = _beside(f"{module}.weight.absmax", stored, "U8" if nested else "F32", count, refuse)
    table = _beside(f"{module}.weight.quant_map", stored, "F32", _TABLE, refuse)
    doubly = ", magnitudes of 8 bits" if nested else ""
    words = f"bitsandbytes, {kind.upper()}, blocks of {block}{doubly}"
    return Blockwise(weight, largest, table, nested, block, shape[1]), shape, words


def _state(tensor: TensorInfo, refuse: Refuses) -> Mapping[str, Any]:
    if tensor.dtype != "U8" or len(tensor.shape) != 1 or tensor.nbytes > _STATE_BYTES:
        refuse(f"stores {tensor.name!r} as {tensor.dtype} {list(tensor.shape)}")
    state = parse_json(read(tensor).tobytes(), f"{tensor.file}: {tensor.name!r}")
    if not isinstance(state, dict):
        refuse(f"has no object in {tensor.name!r}")
    return state


def _shape(weight: TensorInfo, state: Mapping[str, Any], refuse: Refuses) -> tuple[int, int]:
    shape = state.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(size) is int and 0 < size < _LARGEST_SIDE for size in shape)
    ):
        refuse(f"says the shape {shape!r} for {weight.name!r}")
    rows, columns = shape
    if weight.dtype != "U8" or weight.shape != (-(-rows * columns // 2), 1):
        refuse(
            f"stores {weight.name!r} as {weight.dtype} {list(weight.shape)}, which is not a matrix "
            f"of {rows} x {columns} in 4 bits"
        )
    return rows, columns


def _nested(
    module: str,
    stored: Mapping[str, TensorInfo],
    state: Mapping[str, Any],
    count: int,
    refuse: Refuses,
) -> Nested | None:
    name, block = f"{module}.weight.nested_absmax", state.get("nested_blocksize")
    if block is None and name not in stored:
        return None
    offset = state.get("nested_offset")
    if type(block) is not int or not 0 < block < _LARGEST_SIDE:
        refuse(f"says nested_blocksize {block!r} for {module!r}")
    if not isinstance(offset, int | float) or isinstance(offset, bool) or not _is_float32(offset):
        refuse(f"says nested_offset {offset!r} for {module!r}")
    scales = _beside(name, stored, "F32", -(-count // block), refuse)
    table = _beside(f"{module}.weight.nested_quant_map", stored, "F32", _MAGNITUDES, refuse)
    return Nested(scales, table, block, float(offset))


def _is_float32(value: float) -> bool:
    try:
        return abs(value) <= float(np.finfo(np.float32).max)
    except OverflowError:
        return False


def _beside(
    name: str, stored: Mapping[str, TensorInfo], dtype: str, count: int, refuse: Refuses
) -> TensorInfo:
    tensor = stored.get(name)
    if tensor is None:
        refuse(f"has no {name!r}")
    if tensor.dtype != dtype or tensor.shape != (count,):
        refuse(f"has {name!r} as {tensor.dtype} {list(tensor.shape)} instead of {dtype} [{count}]")
    return tensor
