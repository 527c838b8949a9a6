"""A matrix that a checkpoint stores in groups of 4 bits, as the same groups of an OpenVINO graph:
numbers and zero points of the type u4, scales in 16 bits.

The operators are those that NNCF writes for int4_asym, so the engine runs its 4-bit kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint, codes
from packager.shape import TensorSpec


def taken_over(checkpoint: Checkpoint) -> dict[str, codes.Part]:
    """See packager.checkpoint.codes.taken_over."""
    return codes.taken_over(checkpoint, "OpenVINO", codes.beyond_16_bits)


def replace(node: Any, spec: TensorSpec, part: codes.Part) -> None:
    """Put the groups of one matrix in the place of a constant."""
    # Late: it loads the engine.
    import openvino
    from openvino import opset13 as operators

    stored = part.codes()
    rows, groups = stored.scales.shape
    kind = openvino.Type.f16
    numbers = _u4(stored.numbers, (rows, groups, stored.group))
    numbers.set_friendly_name(spec.name)
    zeros = _u4(stored.zeros, (rows, groups, 1))
    scales = operators.constant(stored.scales.astype(np.float16).reshape(rows, groups, 1))
    shifted = operators.subtract(operators.convert(numbers, kind), operators.convert(zeros, kind))
    scaled = operators.multiply(shifted, scales)
    leading = [1] * (len(node.get_output_shape(0)) - len(spec.shape))
    shape = np.array([*leading, *spec.shape], np.int64)
    whole = operators.reshape(scaled, operators.constant(shape), special_zero=False)
    node.output(0).replace(whole.output(0))


def _u4(values: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Any:
    """A constant of 4-bit numbers, two a byte, the lower half first."""
    import openvino

    flat = values.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    packed = np.ascontiguousarray(flat[0::2] | flat[1::2] << 4)
    tensor = openvino.Tensor(packed, openvino.Shape(list(shape)), openvino.Type.u4)
    return openvino.op.Constant(tensor, shared_memory=False)
