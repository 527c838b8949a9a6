"""Rotary positions of a graph: frequencies in float32, and the scaling that openvino-genai's reader
passes over.

The reader computes plain frequencies whatever config.json says of scaling, and saves them in
float16 beside 16-bit weights, where an angle at position 4096 is off by up to two radians.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.errors import bad_input
from packager.reference.rope import frequencies
from packager.shape.positions import Positions, not_computed
from packager.shape.windows import refuse_acting

_ENGINE = "OpenVINO"


def refuse_positions(opened: Checkpoint, context: int | None) -> None:
    """Raise PackError (bad input) for positions or windows that a graph of `context` tokens would
    compute otherwise."""
    positions, context = opened.positions, context or opened.shape.context
    if positions.fixed_up_to is not None and context > positions.fixed_up_to:
        raise not_computed(
            _ENGINE,
            f"positions ({positions.kind}) that change beyond {positions.fixed_up_to} tokens",
            f"Build with --context {positions.fixed_up_to} or less.",
        )
    refuse_acting(_ENGINE, opened.windows, context)


def put_positions(model: Any, positions: Positions) -> None:
    """Replace the frequencies of an openvino.Model that openvino-genai made, and scale cosine and
    sine where the model wants it.

    Raises PackError (bad input) when the graph is built otherwise than the reader builds it.
    """
    # Late: it loads the engine.
    from openvino import op, opset13

    values, factor, width = frequencies(positions), positions.amplitude, positions.width
    turns = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Cos", "Sin")]
    shape = [1, width // 2, 1]
    nodes = (
        {id(node): node for node in (_constant_above(turn, shape) for turn in turns)}
        if len(turns) == 2
        else {}
    )
    if None in nodes.values() or not nodes:
        raise bad_input(
            "The graph that openvino-genai wrote has its positions elsewhere than expected.",
            "Install the tested version.",
        )
    constant = op.Constant(values.reshape(shape))
    for node in nodes.values():
        # Behind the widening of a float16 constant, so that float32 stays float32.
        widened = next((each.get_node() for each in node.output(0).get_target_inputs()), None)
        old = widened if widened is not None and widened.get_type_name() == "Convert" else node
        old.output(0).replace(constant.output(0))
    if factor != 1.0:
        for turn in turns:
            readers = turn.output(0).get_target_inputs()
            scaled = opset13.multiply(turn, op.Constant(np.array(factor, np.float32)))
            for reader in readers:
                reader.replace_source_output(scaled.output(0))


def _constant_above(node: Any, shape: list[int]) -> Any:
    """The constant of that shape that a node is computed from; None where there is none."""
    waiting, seen = [node], 0
    while waiting and seen < 64:
        seen += 1
        here = waiting.pop(0)
        if here.get_type_name() == "Constant" and list(here.get_output_shape(0)) == shape:
            return here
        waiting += [each.get_source_output().get_node() for each in here.inputs()]
    return None
