"""A checkpoint's weights in the place of the skeleton's marks, as the files store them and not read
before they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint, codes
from packager.checkpoint.numbers import check_finite
from packager.errors import PackError, bad_input
from packager.shape import TensorSpec
from targets.openvino import repacked
from targets.openvino.constants import constant
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
    check_finite(checkpoint, spec.name)
    shape = [1] * (len(node.get_output_shape(0)) - len(spec.shape)) + list(spec.shape)
    node.output(0).replace(constant(checkpoint, spec.name, shape).output(0))
