"""The numbers of stored tensors: their numpy types, as float32, and whether they are numbers at
all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from packager.errors import bad_input

if TYPE_CHECKING:
    from packager.checkpoint import Checkpoint

_CHUNK = 1 << 22


def dtype_of(name: str) -> np.dtype[Any]:
    """numpy's type for one of safetensors: BF16, F16, F32 or F64."""
    found: dict[str, np.dtype[Any]] = {
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F16": np.dtype("<f2"),
        "F32": np.dtype("<f4"),
        "F64": np.dtype("<f8"),
    }
    return found[name]


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


def check_finite(checkpoint: Checkpoint, name: str) -> None:
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


def check_all_finite(checkpoint: Checkpoint) -> None:
    """`check_finite` for every tensor of the decoder, for engines that would convert anything."""
    for name in checkpoint.tensors:
        check_finite(checkpoint, name)
