"""The decoder of a model that takes sound, made of the graph that openvino-genai makes of a text
model: vectors of sound come in beside token ids, positions are counted in the graph, and of a
prompt the last token alone is answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.openvino.decoder_graph import foreign, named, parameter_of

VECTORS = "encoder_hidden_states"
_LAST = "last_token"
_NEVER = -65_504.0
"""Added to the score of what comes later: the least number of half precision."""


def take_sound(model: Any, pad: int, width: int) -> None:
    """Let an openvino.Model take `encoder_hidden_states` (1, tokens of sound, width): the first of
    them in place of the first token with the id `pad`, and so on.

    Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    # Late: it loads the engine.
    from openvino import opset13 as ops

    ids = parameter_of(model, "input_ids")
    looked_up = [use.get_node() for use in ids.output(0).get_target_inputs()]
    widened = [node for node in looked_up if node.get_type_name() == "Convert"]
    if len(widened) != 1:
        raise foreign("reads its token ids elsewhere")
    (lookup,) = widened[0].output(0).get_target_inputs()
    rows = lookup.get_node()
    users = rows.output(0).get_target_inputs()
    # A size that is not fixed: whoever clears an input sets one of no size.
    given = named(ops.parameter([-1, -1, -1], np.float32, name=VECTORS))
    vectors = ops.reshape(given, _constant([-1, width]), False)
    stands = ops.equal(ids, _constant(pad))
    number = ops.subtract(ops.cum_sum(ops.convert(stands, "i64"), _constant(1)), _constant(1))
    most = ops.subtract(
        ops.gather(ops.shape_of(vectors, "i64"), _constant(0), _constant(0)), _constant(1)
    )
    # What is no sound takes any row, and none of it.
    bounded = ops.minimum(ops.maximum(number, _constant(0)), most)
    heard = ops.gather(vectors, bounded, _constant(0))
    taken = ops.select(ops.unsqueeze(stands, _constant(2)), heard, rows)
    for use in users:
        use.replace_source_output(taken.output(0))
    model.add_parameters([given])
    model.validate_nodes_and_infer_types()


def count_positions(model: Any) -> None:
    """Let an openvino.Model do without `position_ids` and `attention_mask`: a token stands behind
    those in the cache, and sees them, itself, and nothing later.

    Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    from openvino import opset13 as ops

    nodes = model.get_ordered_ops()
    kept = [node for node in nodes if _reads_cache(node)]
    looks = [node for node in nodes if node.get_type_name() == "ScaledDotProductAttention"]
    if not kept or not looks:
        raise foreign("keeps its cache elsewhere")
    ids, places = parameter_of(model, "input_ids"), parameter_of(model, "position_ids")
    axis, one = _constant(0), _constant(1)
    # (batch, heads, tokens, width), and before the first token none.
    past = ops.gather(ops.shape_of(kept[0], "i64"), _constant(2), axis)
    fresh = ops.gather(ops.shape_of(ids, "i64"), _constant(1), axis)
    end = ops.add(past, fresh)
    own = ops.unsqueeze(ops.range(past, end, one, "i64"), axis)
    places.output(0).replace(own.output(0))
    every = ops.unsqueeze(ops.range(axis, end, one, "i64"), axis)
    later = ops.greater(every, ops.transpose(own, _constant([1, 0])))
    never, seen = (ops.constant(np.array(value, np.float32)) for value in (_NEVER, 0.0))
    mask = ops.unsqueeze(ops.select(later, never, seen), _constant([0, 1]))
    for look in looks:
        look.input(3).replace_source_output(mask.output(0))
    model.remove_parameter(places)
    model.remove_parameter(parameter_of(model, "attention_mask"))
    model.validate_nodes_and_infer_types()


def answer_last(model: Any) -> None:
    """Let an openvino.Model give the logits behind the last token alone, where it gave those behind
    each: nobody looks at the others, and a sound of half a minute has a quarter of a gigabyte of
    them."""
    from openvino import opset13 as ops

    product = model.get_results()[0].input_value(0).get_node()
    if product.get_type_name() != "MatMul":
        raise foreign("ends elsewhere")
    states = product.input_value(0)
    behind, most = _constant([-1]), _constant([np.iinfo(np.int64).max])
    last = ops.slice(states, behind, most, _constant([1]), _constant([1]))
    last.set_friendly_name(_LAST)
    product.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


def answer_all(model: Any) -> None:
    """Take back what `answer_last` did."""
    for node in model.get_ordered_ops():
        if node.get_friendly_name() == _LAST:
            node.output(0).replace(node.input_value(0))
    model.validate_nodes_and_infer_types()


def _reads_cache(node: Any) -> bool:
    above = node.input_values()
    reads = node.get_type_name() == "Gather"
    return reads and bool(above[0].get_node().get_type_name() == "ReadValue")


def _constant(values: Any) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.asarray(values, np.int64))
