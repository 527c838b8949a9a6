"""The decoder of a model that takes pictures, made of the graph that openvino-genai makes of a text
model: embeddings come in instead of token ids, positions in three axes, and with DeepStack what the
tower adds behind the first layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from packager.errors import PackError, bad_input
from packager.reference.rope import frequencies
from packager.shape.positions import Positions

_AXES = 3


def cut_embedding(model: Any) -> None:
    """Let an openvino.Model take `inputs_embeds` (batch, tokens, hidden) where it took `input_ids`.

    Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    # Late: it loads the engine.
    from openvino import opset13 as ops

    ids = parameter_of(model, "input_ids")
    readers = {use.get_node().get_type_name(): use for use in ids.output(0).get_target_inputs()}
    if set(readers) != {"Convert", "ShapeOf"}:
        raise foreign("reads its token ids elsewhere")
    (lookup,) = readers["Convert"].get_node().output(0).get_target_inputs()
    rows = lookup.get_node()
    hidden = rows.get_output_partial_shape(0)[2].get_length()
    given = named(ops.parameter([-1, -1, hidden], np.float32, name="inputs_embeds"))
    rows.output(0).replace(given.output(0))
    readers["ShapeOf"].replace_source_output(given.output(0))
    model.add_parameters([given])
    model.remove_parameter(ids)
    model.validate_nodes_and_infer_types()


def put_axes(model: Any, positions: Positions, axes: npt.NDArray[np.int64]) -> None:
    """Let an openvino.Model take `position_ids` (3, batch, tokens): time, height, width. `axes`
    (width / 2,) says which of them turns each pair of a head's elements.

    Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    from openvino import opset13 as ops

    old = parameter_of(model, "position_ids")
    turns = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Cos", "Sin")]
    angles = {str(turn.input_value(0)): turn.input_value(0) for turn in turns}
    if len(turns) != 2 or len(angles) != 1:
        raise foreign("turns its heads elsewhere")
    given = named(ops.parameter([_AXES, -1, -1], np.int64, name="position_ids"))
    # (pairs, batch, tokens), then the pairs last.
    own = ops.gather(ops.convert(given, "f32"), _constant(axes), _constant(0))
    last = ops.transpose(own, _constant([1, 2, 0]))
    rates = ops.constant(np.asarray(frequencies(positions), np.float32).reshape(1, 1, -1))
    turned = ops.multiply(last, rates)
    (before,) = angles.values()
    before.replace(ops.concat([turned, turned], 2).output(0))
    if positions.amplitude != 1.0:
        factor = ops.constant(np.array(positions.amplitude, np.float32))
        for turn in turns:
            uses = turn.output(0).get_target_inputs()
            scaled = ops.multiply(turn, factor)
            for use in uses:
                use.replace_source_output(scaled.output(0))
    model.add_parameters([given])
    model.remove_parameter(old)
    model.validate_nodes_and_infer_types()


def add_deepstack(model: Any, layers: int) -> None:
    """Let an openvino.Model add `deepstack_visual_embeds` (layers, image tokens, hidden) to the
    states behind its first layers, where `visual_pos_masks` (batch, tokens) says that an image
    token stands. The engine gives one false for all tokens where no picture is.

    Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    from openvino import opset13 as ops

    states = _behind_layers(model)
    if len(states) < layers:
        raise foreign(f"has {len(states)} layers")
    embeds = parameter_of(model, "inputs_embeds")
    hidden = embeds.get_output_partial_shape(0)[2].get_length()
    mask = named(ops.parameter([-1, -1], np.bool_, name="visual_pos_masks"))
    given = named(ops.parameter([layers, -1, hidden], np.float32, name="deepstack_visual_embeds"))
    flat = ops.reshape(mask, _constant([-1]), False)
    # Which of the image tokens each token is; what is no image token takes any row, and none of it.
    count = ops.cum_sum(ops.convert(flat, "i64"), _constant(0))
    number = ops.maximum(ops.subtract(count, _constant(1)), _constant(0))
    batch = ops.gather(ops.shape_of(embeds, "i64"), _constant([0]), _constant(0))
    shape = ops.concat([batch, _constant([-1]), _constant([hidden])], 0)
    there, nothing = ops.unsqueeze(flat, _constant(1)), ops.constant(np.array(0, np.float32))
    for layer in range(layers):
        rows = ops.gather(ops.gather(given, _constant(layer), _constant(0)), number, _constant(0))
        # The engine's own order of tokens: (1, tokens), or (tokens, 1) with paged attention.
        added = ops.reshape(ops.select(there, rows, nothing), shape, False)
        uses = states[layer].output(0).get_target_inputs()
        total = ops.add(states[layer], added)
        for use in uses:
            use.replace_source_output(total.output(0))
    model.add_parameters([mask, given])
    model.validate_nodes_and_infer_types()


def _behind_layers(model: Any) -> list[Any]:
    """The sums that end a layer, in order."""
    named = {
        node.get_friendly_name(): node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Add"
    }
    ends: list[Any] = []
    while (node := named.get(f"model.layers.self_attn.add1.layer{len(ends)}")) is not None:
        ends.append(node)
    return ends


def parameter_of(model: Any, name: str) -> Any:
    """The input of that name. Raises PackError (bad input) where there is none."""
    for node in model.get_parameters():
        if node.get_friendly_name() == name:
            return node
    raise foreign(f"has no {name}")


def named(parameter: Any) -> Any:
    """The same input, whose tensor has its name as well."""
    parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
    return parameter


def _constant(values: Any) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.asarray(values, np.int64))


def foreign(how: str) -> PackError:
    """The refusal of a graph that another version of openvino-genai wrote."""
    return bad_input(
        f"The graph that openvino-genai wrote {how}.",
        "Install the tested version: constraints.txt.",
    )
