"""A checkpoint's weights in the place of the skeleton's marks, as the files store them and not read
before they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint, codes
from packager.checkpoint.numbers import check_finite, to_float32
from packager.errors import PackError, bad_input
from packager.shape import TensorSpec
from targets.openvino import repacked
from targets.openvino.skeleton import marked, narrow


def put_weights(
    model: Any,
    marks: dict[int, TensorSpec],
    checkpoint: Checkpoint,
    taken: Mapping[str, codes.Part] | None = None,
) -> None:
    """Replace every mark of an openvino.Model by the checkpoint's tensor, named as there.

    What is `taken` over stays in its groups of 4 bits. Raises PackError (bad
    input) for NaN or infinity, and for a graph that lacks a mark or has one twice.
    """
    constants: dict[int, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f16":
            values = node.data.reshape(-1)
            mark = int(values[0]) if values.size and np.isfinite(values[0]) else -1
            if (
                mark in marks
                and _fits(node, marks[mark])
                and (values == marked(mark, values.shape)).all()
            ):
                if mark in constants:
                    raise _unexpected(marks[mark])
                constants[mark] = node
    for mark, spec in marks.items():
        if mark not in constants:
            raise _unexpected(spec)
        if taken and spec.name in taken:
            repacked.replace(constants[mark], spec, taken[spec.name])
        else:
            _replace(constants[mark], spec, checkpoint)
    model.validate_nodes_and_infer_types()


def _fits(node: Any, spec: TensorSpec) -> bool:
    """Whether the constant has the skeleton's shape, ones in front aside."""
    shape = tuple(node.get_output_shape(0))
    size = narrow(spec)
    return shape[-len(size) :] == size and all(width == 1 for width in shape[: -len(size)])


def _unexpected(spec: TensorSpec) -> PackError:
    return bad_input(
        f"The graph that openvino-genai wrote does not have {spec.name!r} exactly once.",
        "Install the tested version: constraints.txt.",
    )


def _replace(node: Any, spec: TensorSpec, checkpoint: Checkpoint) -> None:
    # Late: it loads the engine.
    import openvino

    info = checkpoint.tensors[spec.name]
    check_finite(checkpoint, spec.name)
    shape = [1] * (len(node.get_output_shape(0)) - len(spec.shape)) + list(spec.shape)
    if info.dtype in ("F32", "F64"):
        # A 16-bit artifact is what the recipes promise, and bfloat16 has the range that float16
        # lacks. The constant takes a copy: what was converted belongs to nobody once this function
        # is left.
        values = to_float32(checkpoint.array(spec.name)).astype(_bfloat16()).view(np.uint16)
        kind, shared = openvino.Type.bf16, False
    elif info.made is not None:
        # Computed numbers are in memory already, and no longer than until they are released.
        values = checkpoint.array(spec.name).view(np.uint16)
        kind, shared = openvino.Type.bf16 if info.dtype == "BF16" else openvino.Type.f16, False
    else:
        # Over the mapped file, which lives as long as the checkpoint: nothing is copied.
        values = np.frombuffer(checkpoint.raw(spec.name), np.uint16)
        kind, shared = openvino.Type.bf16 if info.dtype == "BF16" else openvino.Type.f16, True
    tensor = openvino.Tensor(values.reshape(-1), openvino.Shape(shape), kind)
    constant = openvino.op.Constant(tensor, shared_memory=shared)
    constant.set_friendly_name(spec.name)
    node.output(0).replace(constant.output(0))
    if not shared:
        checkpoint.release(spec.name)


def _bfloat16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16
