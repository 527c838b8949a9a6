"""The graph of an embedder or a reranker: that of the decoder without output matrix, cache and
positions from outside.

openvino-genai's TextEmbeddingPipeline gives a graph token ids and a mask, takes the states behind
the last norm and pools them itself; its TextRerankPipeline takes one logit of each text and puts it
through the logistic function. Source: openvino.genai, src/cpp/src/rag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packager.errors import PackError, bad_input

STATES, LOGITS = "last_hidden_state", "logits"
"""Names of the output: (texts, tokens, hidden), or (texts, 1)."""

_FED = ("input_ids", "attention_mask")


def cut(model: Any, answers: NDArray[np.float32] | None) -> None:
    """Change an openvino.Model of a decoder, in place, so that it computes whole texts at once,
    padded on either side.

    It gives the states of every token; with `answers`, (hidden,), their product with the state of a
    text's last token. Raises PackError (bad input) for a graph that is not openvino-genai's.
    """
    # Late: it loads the engine.
    import openvino

    given = {node.get_friendly_name(): node for node in model.get_parameters()}
    matrix = model.get_results()[0].input_value(0).get_node()
    if not {*_FED, "position_ids", "beam_idx"} <= set(given) or matrix.get_type_name() != "MatMul":
        raise _foreign()
    mask = given["attention_mask"].output(0)
    _forget(model, _allowed(mask))
    given["position_ids"].output(0).replace(_places(mask))
    states = matrix.input_value(0)
    if answers is None:
        output, name = states, STATES
    else:
        output, name = _product(last_states(states, mask), answers), LOGITS
    result = openvino.opset13.result(output)
    result.set_friendly_name(name)
    output.get_tensor().set_names({name})
    model.remove_result(model.get_results()[0])
    model.add_results([result])
    for unused in ("position_ids", "beam_idx"):
        model.remove_parameter(given[unused])
    model.validate_nodes_and_infer_types()


def last_states(states: Any, mask: Any) -> Any:
    """Output (texts, hidden) of a graph: of `states` (texts, tokens, hidden) those of each text's
    last token by its `mask` (texts, tokens)."""
    from openvino import opset13 as ops

    axis, one = ops.constant(np.array(1, np.int64)), ops.constant(np.array(1, np.int64))
    present = ops.convert(mask, "i64")
    # Positions from 1, padding counted, as it may stand on either side.
    every = ops.cum_sum(ops.maximum(present, one), axis)
    last = ops.reduce_max(ops.multiply(every, present), axis, keep_dims=False)
    return ops.gather(states, ops.subtract(last, one), axis, batch_dims=1).output(0)


def means(states: Any, mask: Any) -> Any:
    """Output (texts, hidden) of a graph: of `states` the mean of each text's tokens."""
    from openvino import opset13 as ops

    axis = ops.constant(np.array(1, np.int64))
    weights = ops.unsqueeze(ops.convert(mask, "f32"), ops.constant(np.array(2, np.int64)))
    total = ops.reduce_sum(ops.multiply(states, weights), axis, keep_dims=False)
    return ops.divide(total, ops.reduce_sum(weights, axis, keep_dims=False)).output(0)


def unit(vectors: Any) -> Any:
    """Output of a graph: `vectors` (texts, hidden) brought to length 1."""
    from openvino import opset13 as ops

    axis = ops.constant(np.array([1], np.int64))
    return ops.normalize_l2(vectors, axis, 1e-12, "max").output(0)


def _places(mask: Any) -> Any:
    """The position of every token in its text, from 0; 0 for padding before it as well."""
    from openvino import opset13 as ops

    axis, one = ops.constant(np.array(1, np.int64)), ops.constant(np.array(1, np.int64))
    before = ops.subtract(ops.cum_sum(ops.convert(mask, "i64"), axis), one)
    return ops.maximum(before, ops.constant(np.array(0, np.int64))).output(0)


def _product(states: Any, answers: NDArray[np.float32]) -> Any:
    from openvino import opset13 as ops

    row = ops.constant(np.ascontiguousarray(answers.reshape(-1, 1)))
    return ops.matmul(states, row, False, False).output(0)


def _allowed(mask: Any) -> Any:
    """Output (texts, 1, tokens, tokens) of a graph: 0 where a token sees another one, a number that
    leaves it no weight where not. A finite one: padding before a text sees nothing at all."""
    from openvino import opset13 as ops

    one, two = (ops.constant(np.array(axis, np.int64)) for axis in (1, 2))
    present = ops.convert(mask, "i64")
    every = ops.cum_sum(ops.maximum(present, one), one)
    before = ops.less_equal(ops.unsqueeze(every, one), ops.unsqueeze(every, two))
    seen = ops.logical_and(before, ops.unsqueeze(ops.convert(mask, "boolean"), one))
    weights = ops.select(
        seen,
        ops.constant(np.array(0, np.float32)),
        ops.constant(np.array(np.finfo(np.float16).min, np.float32)),
    )
    return ops.unsqueeze(weights, one).output(0)


def _forget(model: Any, allowed: Any) -> None:
    """Let keys and values be those of this pass alone: no cache is read, and none is kept."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            node.input(3).replace_source_output(allowed)
        if node.get_type_name() != "ReadValue":
            continue
        for beams in list(node.output(0).get_target_inputs()):
            gather = beams.get_node()
            for use in list(gather.output(0).get_target_inputs()):
                user = use.get_node()
                if user.get_type_name() == "Concat":
                    _repeat(user)
                    user.output(0).replace(user.input_value(1))
    for sink in list(model.get_sinks()):
        model.remove_sink(sink)
    for variable in list(model.get_variables()):
        model.remove_variable(variable)


def _repeat(joined: Any) -> None:
    """Keys or values go to several heads each: as many copies for this pass, whatever its length.

    The graph asks for none, which the plug-in does not see where it keeps a cache itself.
    """
    import openvino

    for use in joined.output(0).get_target_inputs():
        for copies in use.get_node().output(0).get_target_inputs():
            broadcast = copies.get_node()
            if broadcast.get_type_name() == "Broadcast":
                ones = openvino.opset13.constant(np.array([1], np.int64))
                broadcast.input_value(1).get_node().input(3).replace_source_output(ones.output(0))


def _foreign() -> PackError:
    return bad_input(
        "The graph that openvino-genai wrote does not end in an output matrix.",
        "Install the tested version: constraints.txt.",
    )
