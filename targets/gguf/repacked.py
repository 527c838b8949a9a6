"""A matrix that a checkpoint stores in groups of 4 bits, as blocks of ggml: Q4_0 where every zero
point is 8, Q4_1 where scale times zero point is a number of 16 bits.

A block has 32 numbers; those of a larger group share its scale. Source of the layouts: ggml,
src/ggml-common.h (block_q4_0, block_q4_1) and dequantize_row_q4_0 and _q4_1 of src/ggml-quants.c:
(number - 8) * d, and number * d + m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint, codes
from packager.errors import PackError, usage
from targets.gguf.tensors import OutTensor

BLOCK = 32
"""Numbers that share a scale."""
ENGINE = "llama.cpp"
_HALF = BLOCK // 2


@dataclass(frozen=True, slots=True)
class Taken:
    """The matrices of a file that are taken over: their ggml `types` by GGUF name, and the codes of
    their sources by the name in the checkpoint's files."""

    types: Mapping[str, str]
    parts: Mapping[str, codes.Part]


def taken_over(checkpoint: Checkpoint, tensors: Sequence[OutTensor]) -> Taken:
    """What is taken over as it is stored. Raises PackError (usage) naming a matrix that neither
    type holds, or that is stored in another order than llama.cpp has it."""
    parts = codes.taken_over(checkpoint, ENGINE, no_type, qwen2_form=False)
    types = {}
    for tensor in tensors:
        sources = [parts[part.source] for part in tensor.parts if part.source in parts]
        if not sources or tensor.f32:
            continue
        name = tensor.parts[0].source
        if tensor.change is not None or any(part.width for part in tensor.parts):
            raise _refused(checkpoint, name, "has its columns in another order there")
        if len(sources) != len(tensor.parts):
            raise _refused(checkpoint, name, f"is one part of {tensor.name!r}, and not all are")
        types[tensor.name] = "Q4_0" if all(part.centred() for part in sources) else "Q4_1"
    return Taken(types, {checkpoint.tensors[name].name: part for name, part in parts.items()})


def no_type(part: codes.Part) -> str | None:
    """Why neither type holds a matrix, as part of a sentence; None where one does."""
    reason = codes.beyond_16_bits(part)
    if reason is not None:
        return reason
    zeros, scales = part.groups()
    least = -zeros * scales
    if (zeros == codes.MIDDLE).all() or codes.in_16_bits(least):
        return None
    with np.errstate(over="ignore"):
        row, group = np.argwhere(least.astype(np.float16) != least)[0]
    return (
        f"has the zero point {zeros[row, group]} in row {row}, and its product with the scale "
        f"{scales[row, group]:.7g} does not fit into the 16 bits of Q4_1"
    )


def encode(name: str, stored: codes.Codes, out: npt.NDArray[np.uint8]) -> None:
    """The codes as blocks of the type `name`, row by row."""
    rows, columns = stored.numbers.shape
    repeat = stored.group // BLOCK
    scales = np.repeat(stored.scales, repeat, 1)
    low, high = np.split(stored.numbers.reshape(rows, columns // BLOCK, 2, _HALF), 2, 2)
    nibbles = (low | high << 4).reshape(rows, columns // BLOCK, _HALF)
    heads = [scales]
    if name == "Q4_1":
        heads.append(-np.repeat(stored.zeros, repeat, 1).astype(np.float32) * scales)
    packed = [head.astype("<f2")[..., None].view(np.uint8) for head in heads]
    out[:] = np.concatenate([*packed, nibbles], axis=2).reshape(-1)


def _refused(checkpoint: Checkpoint, name: str, why: str) -> PackError:
    return usage(
        f"{name!r} of {checkpoint.folder} cannot be taken over by {ENGINE} as it is: it {why}.",
        "Leave --repack out: it is dequantized then, and quantized again.",
    )
