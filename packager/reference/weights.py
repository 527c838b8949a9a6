"""Weights of a checkpoint as float32, one layer at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.reference.arithmetic import Floats


class Weights:
    """The tensors whose names begin with `prefix`, read when asked for and kept until `close`."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._kept: dict[str, Floats] = {}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._checkpoint.tensors

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, name: str) -> Floats:
        """A tensor, kept for the next question. Raises KeyError for an unknown name."""
        found = self._kept.get(name)
        if found is None:
            found = self._kept[name] = self.once(name)
        return found

    def once(self, name: str, part: int | None = None) -> Floats:
        """A tensor, or one part of it along the outermost axis, that is not kept."""
        stored = self._checkpoint.array(self._prefix + name)
        self._read.add(name)
        return to_float32(stored if part is None else stored[part])

    def rows(self, name: str, numbers: npt.NDArray[np.int64]) -> Floats:
        """The rows of a matrix with these numbers; only they are read."""
        self._read.add(name)
        return to_float32(self._checkpoint.array(self._prefix + name)[numbers])

    def linear(self, x: Floats, name: str) -> Floats:
        """`x` (tokens, inputs) through the matrix `name`.weight (outputs, inputs), plus `name`.bias
        where there is one."""
        out: Floats = x @ self.get(f"{name}.weight").T
        if f"{name}.bias" in self:
            out += self.get(f"{name}.bias")
        return out

    def close(self) -> None:
        """Give the memory back."""
        self._kept.clear()
        for name in self._read:
            self._checkpoint.release(self._prefix + name)
        self._read.clear()


def to_float32(stored: np.ndarray[Any, Any]) -> Floats:
    """bfloat16, float16 or float32 as float32, in the order of rows."""
    if stored.dtype.itemsize == 2 and stored.dtype != np.float16:
        # A bfloat16 is the upper half of a float32.
        bits: npt.NDArray[np.uint32] = np.left_shift(stored.view(np.uint16), 16, dtype=np.uint32)
        return np.asarray(bits.view(np.float32))
    return np.ascontiguousarray(stored, dtype=np.float32)
