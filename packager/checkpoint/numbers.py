"""The numbers of stored tensors: their numpy types, as float32, and whether they are numbers at
all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from packager.checkpoint.header import Rows, TensorInfo
from packager.errors import bad_input

_DTYPES: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_CHUNK = 1 << 22
_STRIP = 1 << 22
"""Elements of a computed tensor that are float32 at once."""


def dtype_of(name: str) -> np.dtype[Any]:
    """numpy's type for one of safetensors. Raises KeyError for one that has none here."""
    return _DTYPES[name]


def as_float32(data: bytes | memoryview, dtype: np.dtype[Any]) -> npt.NDArray[np.float32]:
    """Stored bytes as float32 numbers."""
    return to_float32(np.frombuffer(data, dtype))


def to_float32(stored: np.ndarray[Any, Any]) -> npt.NDArray[np.float32]:
    """bfloat16, float16, float32 or float64 as float32, in the order of rows."""
    if stored.dtype.itemsize == 2 and stored.dtype != np.float16:
        # A bfloat16 is the upper half of a float32.
        bits: npt.NDArray[np.uint32] = np.left_shift(stored.view(np.uint16), 16, dtype=np.uint32)
        return np.asarray(bits.view(np.float32))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(stored, dtype=np.float32)


def read(tensor: TensorInfo, *where: slice) -> np.ndarray[Any, Any]:
    """A part of a stored tensor, copied, so that its file need not stay mapped; `where` as numpy
    takes it."""
    kind = dtype_of(tensor.dtype)
    if not tensor.nbytes:
        return np.empty(tensor.shape, kind)[where]
    mapped = np.memmap(tensor.file, kind, "r", tensor.offset, tensor.shape)
    return np.array(mapped[where])


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows of a tensor as a file holds them."""

    tensor: TensorInfo

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """See packager.checkpoint.header.Rows."""
        shape = self.tensor.shape
        flat = replace(self.tensor, shape=(prod(shape[:-1]), shape[-1]))
        return to_float32(read(flat, slice(first, end)))


def rows_of(tensor: TensorInfo) -> Rows:
    """The rows of any tensor, stored or computed."""
    return tensor.made or Stored(tensor)


def same_rows(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors of one shape hold the same numbers, stored or computed."""
    if replace(one, name="") == replace(other, name=""):
        return True
    count, columns = prod(one.shape[:-1]), max(1, one.shape[-1])
    strip = max(1, _STRIP // columns)
    for first in range(0, count, strip):
        end = min(first + strip, count)
        if not np.array_equal(rows_of(one).rows(first, end), rows_of(other).rows(first, end)):
            return False
    return True


def rounded(values: npt.NDArray[np.floating[Any]], dtype: str) -> np.ndarray[Any, Any]:
    """Numbers in a type of 32 bits at most, once rounded; what it cannot hold becomes infinity."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False).astype(dtype_of(dtype), copy=False)


def compute(tensor: TensorInfo) -> np.ndarray[Any, Any]:
    """A computed tensor as a whole, in its own type."""
    assert tensor.made is not None
    columns = tensor.shape[-1]
    out = np.empty((prod(tensor.shape[:-1]), columns), dtype_of(tensor.dtype))
    strip = max(1, _STRIP // max(1, columns))
    for first in range(0, len(out), strip):
        end = min(first + strip, len(out))
        out[first:end] = rounded(tensor.made.rows(first, end), tensor.dtype)
    return out.reshape(tensor.shape)


def elements(tensor: TensorInfo, start: int, count: int) -> npt.NDArray[np.float32]:
    """`count` numbers of a computed tensor from number `start` in the order of rows, rounded to its
    type, as float32."""
    assert tensor.made is not None
    columns = tensor.shape[-1]
    first, end = start // columns, -(-(start + count) // columns)
    values = to_float32(rounded(tensor.made.rows(first, end), tensor.dtype)).reshape(-1)
    inside = start - first * columns
    return values[inside : inside + count]


class HoldsTensors(Protocol):
    """What holds tensors: a packager.checkpoint.Checkpoint, which is made of this module."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By their official names."""

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The numbers of one."""

    def release(self, name: str) -> None:
        """Let the system take back the memory of one that has been read."""


def check_finite(checkpoint: HoldsTensors, name: str) -> None:
    """Raise PackError (bad input) naming a tensor that holds NaN or infinity, or what float32
    cannot hold."""
    stored = checkpoint.array(name).reshape(-1)
    for start in range(0, stored.size, _CHUNK):
        if not np.isfinite(to_float32(stored[start : start + _CHUNK])).all():
            raise bad_input(
                f"The tensor {checkpoint.tensors[name].name!r} in "
                f"{checkpoint.tensors[name].file.name} holds NaN or infinity.",
                "The checkpoint is damaged or was trained into overflow: fetch it again or take "
                "another revision.",
            )
    del stored
    checkpoint.release(name)


def check_all_finite(checkpoint: HoldsTensors) -> None:
    """`check_finite` for every tensor of the decoder, for engines that would convert anything."""
    for name in checkpoint.tensors:
        check_finite(checkpoint, name)
