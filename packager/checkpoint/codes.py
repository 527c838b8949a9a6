"""The numbers of 4 bits that a checkpoint stores, with their zero points and scales, for a format
that can hold the same: nothing is computed, so nothing is lost a second time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from packager.checkpoint.dequantize import Awq, Gptq, Packed
from packager.checkpoint.header import Rows, TensorInfo
from packager.checkpoint.numbers import read

BITS = 4
GROUPS = (32, 64, 128)
"""Sizes of groups that are taken over."""


@dataclass(frozen=True, slots=True)
class Codes:
    """`numbers` (rows, columns) and `zeros` (rows, groups) from 0 to 15, `scales` (rows, groups):
    a weight is (number - zero) * scale."""

    numbers: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]


def why_not(made: Rows | None) -> str | None:
    """Why a computed tensor has no codes that another format could hold, as part of a sentence;
    None where it has."""
    if not isinstance(made, (Gptq, Awq, Packed)):
        return "is not stored in groups of 4 bits"
    if not isinstance(made, Awq) and made.bits != BITS:
        return f"is stored in {made.bits} bits"
    columns, groups = _columns(made), _groups(made)
    size = columns // groups
    if columns % groups or size not in GROUPS:
        return f"has {groups} groups for {columns} columns"
    index = None if isinstance(made, Awq) else made.g_idx
    if index is not None and (read(index) != np.arange(columns) // size).any():
        return "has its columns in another order (act-order)"
    scales = read(_scales(made)).astype(np.float32)
    with np.errstate(over="ignore"):
        if (scales.astype(np.float16) != scales).any():
            return "has scales that 16 bits do not hold"
    return None


def of(made: Rows) -> Codes:
    """The codes of a whole matrix for which there is no `why_not`."""
    assert isinstance(made, (Gptq, Awq, Packed))
    numbers, zeros, scales = made.codes()
    return Codes(
        np.ascontiguousarray(numbers, np.uint8),
        np.ascontiguousarray(zeros, np.uint8),
        np.ascontiguousarray(scales, np.float16),
    )


def _scales(made: Gptq | Awq | Packed) -> TensorInfo:
    return made.scale if isinstance(made, Packed) else made.scales


def _groups(made: Gptq | Awq | Packed) -> int:
    return _scales(made).shape[1 if isinstance(made, Packed) else 0]


def _columns(made: Gptq | Awq | Packed) -> int:
    if isinstance(made, Packed):
        return made.columns
    return made.qweight.shape[0] * (32 // BITS if isinstance(made, Gptq) else 1)
