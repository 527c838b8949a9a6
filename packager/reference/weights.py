"""Weights of a checkpoint as float32, one layer at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import to_float32
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
        kept = self._kept.get(name)
        if kept is None:
            kept = self._kept[name] = self.once(name)
        return kept

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
