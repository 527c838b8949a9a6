"""The importance matrix: how much each column of a weight matters, as llama.cpp's `llama-imatrix` collects it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from packager.errors import bad_input
from targets.llama_cpp import library
from targets.llama_cpp.kernels import Floats, type_id
from targets.llama_cpp.tensors import TypedTensor

_SUMS, _COUNTS = ".in_sum2", ".counts"


def read_imatrix(path: Path) -> dict[str, Floats]:
    """Tensor name -> mean square of its input, (matrices, columns); 1 for an expert that was never chosen.

    The file is a GGUF of llama.cpp's own (`llama-imatrix --output-format gguf`, its default). Raises PackError (bad input) naming it.
    """
    try:
        reader: Any = gguf.GGUFReader(path)
        tensors = {tensor.name: np.asarray(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise bad_input(
            f"{path} is no importance matrix in GGUF form ({error}).",
            "Convert an older one: llama-imatrix --in-file OLD --output-format gguf -o NEW.gguf",
        ) from error
    found: dict[str, Floats] = {}
    for name, sums in tensors.items():
        if not name.endswith(_SUMS):
            continue
        counts = tensors.get(name.removesuffix(_SUMS) + _COUNTS)
        if counts is None or sums.size % max(1, counts.size) or not np.isfinite(sums).all():
            raise bad_input(f"{path}: the entry {name!r} has no counts that fit, or values that are no numbers.", "Collect it again.")
        rows, each = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
        found[name.removesuffix(_SUMS)] = np.where(each > 0, rows / np.where(each > 0, each, 1), np.float32(1)).astype(np.float32)
    if not found:
        raise bad_input(f"{path} holds no importance matrix.", "Collect one with llama-imatrix.")
    return found


def check_imatrix(imatrix: dict[str, Floats] | None, typed: list[TypedTensor]) -> None:
    """Raise PackError (bad input) naming a tensor that needs an entry and has none, or one of another size."""
    if imatrix is None:
        return
    for entry in typed:
        tensor = entry.tensor
        weights = imatrix.get(tensor.name)
        if weights is None:
            if library.ggml_base().ggml_quantize_requires_imatrix(type_id(entry.type)):
                raise bad_input(
                    f"The importance matrix says nothing of {tensor.name!r}, which becomes {entry.type}.",
                    "Collect it with this very model.",
                )
        elif weights.size != tensor.columns * (tensor.rows // tensor.matrix_rows):
            raise bad_input(
                f"The importance matrix has {weights.size} values for {tensor.name!r}, which has {tensor.columns} columns.",
                "Collect it with this very model.",
            )
