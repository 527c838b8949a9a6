"""The numbers of 4 bits that a checkpoint stores, with their zero points and scales, for a format
that can hold the same: nothing is computed, so nothing is lost a second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.checkpoint.dequantize import Awq, Gptq, Packed
from packager.checkpoint.header import Rows
from packager.checkpoint.numbers import read
from packager.checkpoint.rewrite import rows_in_qwen2_form
from packager.errors import bad_input, usage

BITS = 4
GROUPS = (32, 64, 128)
"""Sizes of groups that are taken over."""
MIDDLE = 1 << (BITS - 1)
"""The zero point of numbers that lie around half their range."""
_SCALES = "has scales that 16 bits do not hold"


@dataclass(frozen=True, slots=True)
class Codes:
    """`numbers` (rows, columns) and `zeros` (rows, groups) from 0 to 15, `scales` (rows, groups):
    a weight is (number - zero) * scale."""

    numbers: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return int(self.numbers.shape[1] // self.scales.shape[1])


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first` to `end` of a matrix that is stored as codes, of groups of `group` columns."""

    rows: Gptq | Awq | Packed
    first: int
    end: int

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return _columns(self.rows) // _groups(self.rows)

    def codes(self, first: int = 0, count: int | None = None) -> Codes:
        """`count` rows from row `first` of this part on; None: all that follow."""
        start = self.first + first
        end = self.end if count is None else start + count
        zeros, scales = self.rows.groups(start, end)
        return Codes(
            np.ascontiguousarray(self.rows.numbers(start, end), np.uint8),
            np.ascontiguousarray(zeros, np.uint8),
            np.ascontiguousarray(scales, np.float32),
        )

    def groups(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Zero points and scales (rows, groups), without the numbers."""
        zeros, scales = self.rows.groups(self.first, self.end)
        return zeros, scales.astype(np.float32)

    def centred(self) -> bool:
        """Whether every zero point is the middle of the range."""
        return bool((self.groups()[0] == MIDDLE).all())


Limits = Callable[[Part], str | None]
"""Why an engine's format does not hold a matrix as it is stored, as part of a sentence."""


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
    return None


def beyond_16_bits(part: Part) -> str | None:
    """Why the scales of a matrix are no numbers of float16; None where they are."""
    return None if in_16_bits(part.groups()[1]) else _SCALES


def in_16_bits(values: npt.NDArray[np.float32]) -> bool:
    """Whether float16 holds all of these numbers as they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((values.astype(np.float16) == values).all())


def taken_over(
    checkpoint: Checkpoint,
    engine: str,
    limits: Limits | None = None,
    *,
    qwen2_form: bool = True,
) -> dict[str, Part]:
    """Every matrix that is stored in groups of 4 bits, by its official name; with `qwen2_form` by
    the names that a checkpoint of the first generation has there.

    Raises PackError naming a matrix that `engine` cannot hold as it is stored (usage), one whose
    scales are no numbers (bad input), or a checkpoint that has no groups (usage).
    """
    parts = {}
    for name, (stored, first, end) in rows_in_qwen2_form(checkpoint, qwen2_form).items():
        made = checkpoint.tensors[stored].made
        if made is None:
            continue
        reason = why_not(made)
        if reason is None:
            assert isinstance(made, (Gptq, Awq, Packed))
            part = parts[name] = Part(made, first, end)
            if not np.isfinite(part.groups()[1]).all():
                raise bad_input(
                    f"The scales of {stored!r} hold NaN or infinity.", "Fetch the checkpoint again."
                )
            reason = limits(part) if limits else None
        if reason is not None:
            raise usage(
                f"{stored!r} of {checkpoint.folder} cannot be taken over by {engine} as it is: it "
                f"{reason}.",
                "Leave --repack out: it is dequantized then, and quantized again.",
            )
    if not parts:
        raise usage(
            f"{checkpoint.folder} stores nothing in groups of 4 bits.", "Leave --repack out."
        )
    return parts


def _groups(made: Gptq | Awq | Packed) -> int:
    return made.scale.shape[1] if isinstance(made, Packed) else made.scales.shape[0]


def _columns(made: Gptq | Awq | Packed) -> int:
    if isinstance(made, Packed):
        return made.columns
    return made.qweight.shape[0] * (32 // BITS if isinstance(made, Gptq) else 1)
