"""What every graph that is written with openvino's own operators has: constants of a checkpoint,
products by them, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import check_finite
from targets.openvino.constants import constant


class GraphParts:
    """Parts of graphs whose tensors `checkpoint` has, by names behind `prefix`.

    Raises PackError (bad input) for a tensor that holds NaN or infinity.
    """

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        # Late: it loads the engine.
        from openvino import opset13

        self._checkpoint, self._prefix, self._ops = checkpoint, prefix, opset13

    def _linear(self, name: str, state: Any) -> Any:
        product = self._product(name, state)
        return self._ops.add(product, self._weight(f"{name}.bias"))

    def _product(self, name: str, state: Any, shape: Sequence[int] | None = None) -> Any:
        return self._ops.matmul(state, self._weight(f"{name}.weight", shape), False, True)

    def _weight(self, name: str, shape: Sequence[int] | None = None) -> Any:
        """A tensor widened to float32, in a shape of its own where one is given."""
        official = self._prefix + name
        check_finite(self._checkpoint, official)
        size = self._checkpoint.tensors[official].shape if shape is None else shape
        return self._ops.convert(constant(self._checkpoint, official, size), "f32")

    def _parameter(self, name: str, shape: list[int], kind: Any = np.float32) -> Any:
        parameter = self._ops.parameter(shape, kind, name=name)
        parameter.output(0).get_tensor().set_names({name})
        return parameter

    def _number(self, value: int) -> Any:
        return self._ops.constant(np.array(value, np.int64))

    def _numbers(self, values: list[int]) -> Any:
        return self._ops.constant(np.array(values, np.int64))

    def _float(self, value: float) -> Any:
        return self._ops.constant(np.array(value, np.float32))

    def _model(self, inputs: list[Any], outputs: Mapping[str, Any], name: str) -> Any:
        import openvino

        results = []
        for label, node in outputs.items():
            node.output(0).get_tensor().set_names({label})
            results.append(self._ops.result(node, name=label))
        return openvino.Model(results, inputs, name)
