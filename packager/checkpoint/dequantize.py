"""Weights that are stored quantized, as the float32 rows that they stand for.

Layouts after their own implementations: GPTQ and AWQ as AutoGPTQ, GPTQModel and AutoAWQ pack them
(transformers reads the same), FP8 as Qwen and DeepSeek publish it (a scale for every block, by
which is multiplied), compressed-tensors as its `pack-quantized`, `int-quantized` and
`float-quantized` formats lay it out. packager.checkpoint.blockwise has those of bitsandbytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint.header import TensorInfo
from packager.checkpoint.numbers import read

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Groups = tuple[Ints, npt.NDArray[Any]]
"""Zero points and scales of groups, the scales in the type that they are stored in."""

_WORD = 32
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word of AWQ the four bits of each of eight neighbouring outputs stand."""


def unpack(words: npt.NDArray[Any], bits: int, axis: int) -> Ints:
    """Whole numbers of so many bits that lie one behind the other in 32-bit words, lowest bits
    first, along `axis`; of three bits some lie across two words."""
    packed = np.moveaxis(words.view(np.uint32), axis, 0)
    count = packed.shape[0] * _WORD // bits
    first_bit = np.arange(count, dtype=np.uint64) * np.uint64(bits)
    word, shift = (first_bit // _WORD).astype(np.intp), (first_bit % _WORD).astype(np.uint64)
    shift = shift.reshape(-1, *[1] * (packed.ndim - 1))
    values = packed[word].astype(np.uint64) >> shift
    if _WORD % bits:
        following = packed[np.minimum(word + 1, packed.shape[0] - 1)].astype(np.uint64)
        values |= following << (np.uint64(_WORD) - shift)
    numbers = (values & np.uint64((1 << bits) - 1)).astype(np.int32)
    return np.moveaxis(numbers, 0, axis)


@dataclass(frozen=True, slots=True)
class Gptq:
    """`qweight` (inputs * bits / 32, outputs), `qzeros` (groups, outputs * bits / 32), `scales`
    (groups, outputs), `g_idx` (inputs) the group of each input.

    `zeros_less_one`: zero points are stored less one, as all but `gptq_v2` do.
    """

    qweight: TensorInfo
    qzeros: TensorInfo
    scales: TensorInfo
    g_idx: TensorInfo | None
    bits: int
    group: int
    zeros_less_one: bool

    def rows(self, first: int, end: int) -> Floats:
        """See packager.checkpoint.header.Rows."""
        inside, inputs = slice(first, end), self.qweight.shape[0] * _WORD // self.bits
        numbers = unpack(read(self.qweight, slice(None), inside), self.bits, 0)
        scales = read(self.scales, slice(None), inside).astype(np.float32)
        zeros = self._zeros(first, end)
        group = (
            read(self.g_idx).astype(np.intp)
            if self.g_idx is not None
            else np.arange(inputs) // self.group
        )
        values: Floats = (numbers - zeros[group]).astype(np.float32)
        values *= scales[group]
        return np.ascontiguousarray(values.T)

    def numbers(self, first: int, end: int) -> Ints:
        """Whole numbers (outputs, inputs) of some outputs."""
        return unpack(read(self.qweight, slice(None), slice(first, end)), self.bits, 0).T

    def groups(self, first: int, end: int) -> Groups:
        """Zero points and scales (outputs, groups) of some outputs."""
        return self._zeros(first, end).T, read(self.scales, slice(None), slice(first, end)).T

    def _zeros(self, first: int, end: int) -> Ints:
        # A run of words that no value crosses: 32 outputs, whatever the bits.
        start, stop = first // _WORD, -(-end // _WORD)
        words = slice(start * self.bits, stop * self.bits)
        stored = unpack(read(self.qzeros, slice(None), words), self.bits, 1)
        zeros = stored[:, first - start * _WORD : end - start * _WORD]
        if self.zeros_less_one:
            zeros = (zeros + 1) & ((1 << self.bits) - 1)
        return zeros


@dataclass(frozen=True, slots=True)
class Awq:
    """`qweight` (inputs, outputs / 8), `qzeros` (groups, outputs / 8), `scales` (groups, outputs);
    four bits."""

    qweight: TensorInfo
    qzeros: TensorInfo
    scales: TensorInfo
    group: int

    def rows(self, first: int, end: int) -> Floats:
        """See packager.checkpoint.header.Rows."""
        inside = slice(first, end)
        numbers, zeros = (
            self._unpacked(tensor, first, end) for tensor in (self.qweight, self.qzeros)
        )
        scales = read(self.scales, slice(None), inside).astype(np.float32)
        group = np.arange(self.qweight.shape[0]) // self.group
        values: Floats = (numbers - zeros[group]).astype(np.float32)
        values *= scales[group]
        return np.ascontiguousarray(values.T)

    def numbers(self, first: int, end: int) -> Ints:
        """Whole numbers (outputs, inputs) of some outputs."""
        return self._unpacked(self.qweight, first, end).T

    def groups(self, first: int, end: int) -> Groups:
        """Zero points and scales (outputs, groups) of some outputs."""
        scales = read(self.scales, slice(None), slice(first, end))
        return self._unpacked(self.qzeros, first, end).T, scales.T

    def _unpacked(self, tensor: TensorInfo, first: int, end: int) -> Ints:
        start, stop = first // 8, -(-end // 8)
        numbers = unpack(read(tensor, slice(None), slice(start, stop)), 4, 1)
        ordered = numbers.reshape(len(numbers), -1, 8)[:, :, list(_AWQ_ORDER)]
        return ordered.reshape(len(numbers), -1)[:, first - start * 8 : end - start * 8]


@dataclass(frozen=True, slots=True)
class Scaled:
    """Numbers of 8 bits times a scale: one for all, one for every row, or one for every block of
    `block` (rows, columns).

    `weight` (..., rows, columns), `scale` with as many leading dimensions.
    """

    weight: TensorInfo
    scale: TensorInfo
    block: tuple[int, int] | None = None

    def rows(self, first: int, end: int) -> Floats:
        """See packager.checkpoint.header.Rows."""
        shape = self.weight.shape
        flat = replace(self.weight, shape=(prod(shape[:-1]), shape[-1]))
        values: Floats = read(flat, slice(first, end)).astype(np.float32)
        scale = read(self.scale).astype(np.float32)
        if self.block is None:
            values *= scale if scale.size == 1 else scale.reshape(-1, 1)[first:end]
            return values
        rows, columns = self.block
        tables = scale.reshape(-1, *scale.shape[-2:])
        number = np.arange(first, end)
        table, inside = number // shape[-2], number % shape[-2]
        across = np.arange(shape[-1]) // columns
        values *= tables[table, inside // rows][:, across]
        return values


@dataclass(frozen=True, slots=True)
class Packed:
    """`packed` (rows, columns * bits / 32) of compressed-tensors, `scale` (rows, groups), `zero`
    (rows * bits / 32, groups); without `zero` the numbers are around half their range.

    `g_idx` (columns) is the group of each column where they are not one behind the other.
    """

    packed: TensorInfo
    scale: TensorInfo
    zero: TensorInfo | None
    g_idx: TensorInfo | None
    bits: int
    columns: int

    def rows(self, first: int, end: int) -> Floats:
        """See packager.checkpoint.header.Rows."""
        inside, groups = slice(first, end), self.scale.shape[-1]
        numbers = unpack(read(self.packed, inside), self.bits, 1)[:, : self.columns]
        scale = read(self.scale, inside).astype(np.float32)
        group = (
            read(self.g_idx).astype(np.intp)
            if self.g_idx is not None
            else np.arange(self.columns) // (self.columns // groups)
        )
        zero: Any = 1 << (self.bits - 1)
        if self.zero is not None:
            zero = self._zeros(self.zero, first, end)[:, group]
        values: Floats = (numbers - zero).astype(np.float32)
        values *= scale[:, group]
        return values

    def numbers(self, first: int, end: int) -> Ints:
        """Whole numbers (rows, columns) of some rows."""
        return unpack(read(self.packed, slice(first, end)), self.bits, 1)[:, : self.columns]

    def groups(self, first: int, end: int) -> Groups:
        """Zero points and scales (rows, groups) of some rows."""
        scales = read(self.scale, slice(first, end))
        if self.zero is None:
            return np.full(scales.shape, 1 << (self.bits - 1), np.int32), scales
        return self._zeros(self.zero, first, end), scales

    def _zeros(self, zero: TensorInfo, first: int, end: int) -> Ints:
        start, stop = first // _WORD, -(-end // _WORD)
        stored = unpack(read(zero, slice(start * self.bits, stop * self.bits)), self.bits, 0)
        return stored[first - start * _WORD : end - start * _WORD]
