"""Tensors of a checkpoint as constants of an openvino graph: in 16 bits, over the mapped file
wherever it has them so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import to_float32


def constant(checkpoint: Checkpoint, name: str, shape: Sequence[int]) -> Any:
    """An openvino Constant of that shape, named as the tensor. It may lie over the mapped file,
    which lives as long as the checkpoint: nothing is copied then."""
    # Late: it loads the engine.
    import openvino

    info = checkpoint.tensors[name]
    if info.dtype in ("F32", "F64"):
        # A 16-bit artifact is what the recipes promise, and bfloat16 has the range that float16
        # lacks. The constant takes a copy: what was converted belongs to nobody once this function
        # is left.
        values = to_float32(checkpoint.array(name)).astype(_bfloat16()).view(np.uint16)
        kind, shared = openvino.Type.bf16, False
    elif info.made is not None:
        # Computed numbers are in memory already, and no longer than until they are released.
        values = checkpoint.array(name).view(np.uint16)
        kind, shared = openvino.Type.bf16 if info.dtype == "BF16" else openvino.Type.f16, False
    else:
        values = np.frombuffer(checkpoint.raw(name), np.uint16)
        kind, shared = openvino.Type.bf16 if info.dtype == "BF16" else openvino.Type.f16, True
    tensor = openvino.Tensor(values.reshape(-1), openvino.Shape(list(shape)), kind)
    made = openvino.op.Constant(tensor, shared_memory=shared)
    made.set_friendly_name(name)
    if not shared:
        checkpoint.release(name)
    return made


def _bfloat16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16
