"""A matrix that a checkpoint stores in groups of 4 bits, as the same groups of an OpenVINO graph:
numbers and zero points of the type u4, scales in 16 bits.

The operators are those that NNCF writes for int4_asym, so the engine runs its 4-bit kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint, codes
from packager.errors import bad_input, usage
from packager.shape import TensorSpec


def refuse_without(checkpoint: Checkpoint) -> None:
    """Raise PackError (usage) naming a matrix whose groups no graph can hold as they are, or a
    checkpoint that has none."""
    made = {name: row.made for name, row in checkpoint.tensors.items() if row.made is not None}
    for name, rows in made.items():
        reason = codes.why_not(rows)
        if reason is not None:
            raise usage(
                f"{name!r} of {checkpoint.folder} cannot be taken over as it is: it {reason}.",
                "Leave --repack out: it is dequantized then, and quantized again.",
            )
    if not made:
        raise usage(
            f"{checkpoint.folder} stores nothing in groups of 4 bits.", "Leave --repack out."
        )


def replace(node: Any, spec: TensorSpec, checkpoint: Checkpoint) -> None:
    """Put the groups of one matrix in the place of a constant. Raises PackError (bad input) for
    scales that are no numbers."""
    # Late: it loads the engine.
    import openvino
    from openvino import opset13 as operators

    made = checkpoint.tensors[spec.name].made
    assert made is not None
    found = codes.of(made)
    if not np.isfinite(found.scales).all():
        raise bad_input(
            f"The scales of {spec.name!r} hold NaN or infinity.", "Fetch the checkpoint again."
        )
    rows, groups = found.scales.shape
    kind = openvino.Type.f16
    numbers = _u4(found.numbers, (rows, groups, found.numbers.shape[1] // groups))
    numbers.set_friendly_name(spec.name)
    zeros = _u4(found.zeros, (rows, groups, 1))
    scales = operators.constant(found.scales.reshape(rows, groups, 1))
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
