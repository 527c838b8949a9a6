"""Adapters merged into the tensors of a base, each number when it is asked for.

W + s * BA in 64 bits, so that a row is the same whatever is computed beside it, rounded once to the
type that the base stores. DoRA after peft's dora.py: rows of that sum brought to the length of
their magnitude. What is trained of a tied embedding is no part of the output matrix, as in
training, unless the adapter says so or has added tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from packager.checkpoint.adapter import Adapter, LowRank, refused
from packager.checkpoint.header import ITEM_BYTES, TensorInfo
from packager.checkpoint.naming import OUTPUT, official_name
from packager.checkpoint.numbers import read, rows_of, same_rows, to_float32
from packager.errors import bad_input
from packager.shape import Shape
from packager.shape.tensors import naming_of, outer_tensors

Doubles = npt.NDArray[np.float64]

_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS stays in the thread that asks. Those who ask are threads
themselves, and wait for each other where it does not. Source: interface/gemm.c of OpenBLAS
(SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD)."""
_TILE_ROWS = 8


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of W + s * BA, with DoRA brought to their magnitudes."""

    base: TensorInfo
    added: LowRank

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """See packager.checkpoint.header.Rows."""
        added, inside = self.added, slice(first, end)
        if added.embedding:
            up, down = _doubles(added.up, slice(None), inside).T, _doubles(added.down).T
        else:
            up, down = _doubles(added.up, inside), _doubles(added.down)
        merged: Doubles = rows_of(self.base).rows(first, end).astype(np.float64)
        _add_product(merged, up, down, added.scaling)
        if added.magnitude is not None:
            length = np.sqrt((merged * merged).sum(axis=1))
            with np.errstate(divide="ignore", invalid="ignore"):
                merged *= (_doubles(added.magnitude).reshape(-1)[inside] / length)[:, None]
        with np.errstate(over="ignore"):
            return merged.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Shifted:
    """A bias with what an adapter adds to it."""

    base: TensorInfo
    added: TensorInfo
    scaling: float

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """See packager.checkpoint.header.Rows."""
        kept = rows_of(self.base).rows(first, end).astype(np.float64)
        return (kept + self.scaling * _doubles(self.added).reshape(1, -1)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor of the adapter's in place of the base's."""

    tensor: TensorInfo

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """See packager.checkpoint.header.Rows."""
        return rows_of(self.tensor).rows(first, end)


def _add_product(sums: Doubles, up: Doubles, down: Doubles, scaling: float) -> None:
    """`sums` plus `scaling` times up @ down, in tiles."""
    width = max(1, _ONE_THREAD // (_TILE_ROWS * up.shape[1]))
    for row in range(0, sums.shape[0], _TILE_ROWS):
        rows = slice(row, row + _TILE_ROWS)
        for column in range(0, sums.shape[1], width):
            columns = slice(column, column + width)
            sums[rows, columns] += scaling * (up[rows] @ down[:, columns])


def _doubles(tensor: TensorInfo, *where: slice) -> Doubles:
    return to_float32(read(tensor, *where)).astype(np.float64)


def merge(
    shape: Shape,
    tensors: Mapping[str, TensorInfo],
    adapter: Adapter,
    *,
    numbers: bool = True,
) -> tuple[Shape, dict[str, TensorInfo]]:
    """The shape and the tensors, by official name, with an adapter in them.

    Without `numbers` there are only names and shapes, and both ends of a tied vocabulary count as
    different once one of them is trained.
    Raises PackError (exit code 6) that names what of the adapter the base has not, or has in
    another size.
    """
    work = _Merging(shape, dict(tensors), adapter, numbers)
    return work.done()


class _Merging:
    """One adapter on its way into one base."""

    def __init__(
        self, shape: Shape, tensors: dict[str, TensorInfo], adapter: Adapter, numbers: bool
    ) -> None:
        self._shape, self._adapter, self._numbers = shape, adapter, numbers
        self._before, self._tensors = dict(tensors), tensors
        self._expected = {name: tensor.shape for name, tensor in tensors.items()}
        self._embedding = next(outer_tensors(shape)).name
        self._head = naming_of(shape).head + OUTPUT
        self._problems: list[str] = []

    def done(self) -> tuple[Shape, dict[str, TensorInfo]]:
        """Put everything where it belongs."""
        shape = self._shape
        trained = {self._name(name) for name in self._targets()}
        if shape.tied and trained & {self._embedding, self._head}:
            # Two matrices from here on, until they are seen to be one.
            self._tensors[self._head] = replace(self._before[self._embedding], name=self._head)
            self._expected[self._head] = self._expected[self._embedding]
        rows = self._replace()
        if rows is not None:
            shape = replace(shape, vocab=rows)
        for module, added in self._adapter.low_rank.items():
            self._add(module, added)
        if self._problems:
            raise refused(self._adapter, self._problems)
        if shape.tied and self._head in self._tensors:
            if self._still_tied():
                del self._tensors[self._head]
            else:
                shape = replace(shape, tied=False)
        return shape, self._tensors

    def _targets(self) -> list[str]:
        return [*self._adapter.replaced, *(f"{name}.weight" for name in self._adapter.low_rank)]

    def _name(self, stored: str) -> str:
        return official_name(stored, self._shape, self._expected) or stored

    def _replace(self) -> int | None:
        """Tensors that the adapter stores whole; returns the rows of a vocabulary that has
        grown."""
        rows = None
        for stored, tensor in self._adapter.replaced.items():
            name = self._name(stored)
            before = self._tensors.get(name)
            if before is None:
                self._problems.append(f"the base has no {stored!r}")
            elif name in (self._embedding, self._head) and tensor.shape[1:] == before.shape[1:]:
                rows = self._vocabulary(tensor, rows)
                self._put(name, tensor)
            elif tensor.shape != before.shape:
                self._differs(stored, tensor.shape, before.shape)
            else:
                self._put(name, tensor)
        if rows is not None:
            self._grow(rows)
        return rows

    def _vocabulary(self, tensor: TensorInfo, rows: int | None) -> int:
        if rows is not None and rows != tensor.shape[0]:
            self._problems.append(
                f"{tensor.name!r} has {tensor.shape[0]} rows, and the other end of the vocabulary "
                f"{rows}"
            )
        return tensor.shape[0]

    def _grow(self, rows: int) -> None:
        """Both ends of a vocabulary have as many rows; a tied base is given the adapter's at
        both."""
        whole = {
            name: self._tensors[name]
            for name in (self._embedding, self._head)
            if name in self._tensors and self._tensors[name].shape[0] == rows
        }
        for name in (self._embedding, self._head):
            tensor = self._tensors.get(name)
            if tensor is None or tensor.shape[0] == rows:
                continue
            if self._shape.tied and whole:
                self._tensors[name] = replace(next(iter(whole.values())), name=name)
            else:
                self._differs(name, (rows, *tensor.shape[1:]), tensor.shape)

    def _add(self, module: str, added: LowRank) -> None:
        name = self._name(f"{module}.weight")
        before = self._tensors.get(name)
        if before is None:
            self._problems.append(f"the base has no {f'{module}.weight'!r}")
            return
        if before.shape != added.shape:
            self._differs(f"{module}.weight", added.shape, before.shape)
            return
        self._tensors[name] = replace(_computed(before), made=Merged(before, added))
        if added.bias is None:
            return
        bias = self._name(f"{module}.bias")
        if bias not in self._tensors:
            self._problems.append(f"the base has no {f'{module}.bias'!r}")
            return
        before = self._tensors[bias]
        self._tensors[bias] = replace(
            _computed(before), made=Shifted(before, added.bias, added.scaling)
        )

    def _put(self, name: str, tensor: TensorInfo) -> None:
        own = self._before.get(name)
        before = own or self._before[self._embedding]
        if own is not None and isinstance(own.made, Whole):
            raise bad_input(
                f"Two adapters both store {name!r} whole; the second is in {self._adapter.folder}.",
                "Merge one of them first, or leave one out.",
            )
        self._tensors[name] = _computed(
            replace(before, name=name, shape=tensor.shape, file=tensor.file), Whole(tensor)
        )

    def _differs(self, name: str, has: tuple[int, ...], needs: tuple[int, ...]) -> None:
        self._problems.append(
            f"{name!r} is {list(has)} in the adapter and {list(needs)} in the base"
        )

    def _still_tied(self) -> bool:
        """Whether both ends of the vocabulary hold the same numbers after all, or are meant to."""
        one, other = self._tensors[self._embedding], self._tensors[self._head]
        if self._adapter.tied:
            if one == replace(self._before[self._embedding], name=one.name):
                self._tensors[self._embedding] = replace(other, name=self._embedding)
            return True
        return one.shape == other.shape and self._numbers and same_rows(one, other)


def _computed(before: TensorInfo, made: Whole | None = None) -> TensorInfo:
    """A tensor that is computed, in the type of the base's; numbers of 64 bits become float32."""
    dtype = "F32" if before.dtype == "F64" else before.dtype
    return replace(
        before,
        dtype=dtype,
        offset=0,
        nbytes=prod(before.shape) * ITEM_BYTES[dtype],
        made=made,
    )
