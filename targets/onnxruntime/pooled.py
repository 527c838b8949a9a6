"""The graph of an embedder or a reranker: the model builder's decoder without output matrix and
cache, with the pooling in it.

It takes token ids and a mask, texts padded on the right, and gives vectors of length 1 or
probabilities of yes: nothing is left for an application to do otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from packager.errors import PackError, bad_input

if TYPE_CHECKING:
    import onnx

GRAPH = "model.onnx"
VECTORS, SCORES = "sentence_embedding", "score"
"""Names of the output: (texts, hidden), or (texts, 1)."""

_HEAD = "/lm_head/"
_LOOKUP = "/model/embed_tokens/"
_LAST = "/model/attn_mask_reformat/attn_mask_subgraph/Sub/output_0"
"""(texts): the number of the last token of each text, which attention asks for as well."""
_COLUMN = "/pool/column"
_PAST = slice(3, 5)
"""Where GroupQueryAttention takes keys and values of the tokens before."""


def cut(built: Path, answers: NDArray[np.float32] | None) -> None:
    """Change the graph in the folder `built`; with `answers`, (hidden,), it gives scores.

    Raises PackError (bad input) for a graph that is not the model builder's.
    """
    # Late: onnx is an engine's own package.
    import onnx

    model = onnx.load(str(built / GRAPH), load_external_data=False)
    graph = model.graph
    head = [node for node in graph.node if node.name.startswith(_HEAD)]
    names = {name for node in graph.node for name in node.output}
    if not head or _LAST not in names:
        raise _foreign()
    states, width = head[0].input[0], _width(graph)
    for node in head:
        graph.node.remove(node)
    _forget(graph)
    _embedding(built, graph)
    graph.node.extend(_ending(states, answers is None))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), _COLUMN))
    if answers is not None:
        row = onnx.numpy_helper.from_array(answers.reshape(-1, 1).copy(), "score.weight")
        graph.initializer.append(row)
    name, columns = (VECTORS, width) if answers is None else (SCORES, 1)
    result = onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, ["batch_size", columns]
    )
    del graph.output[:]
    graph.output.append(result)
    _prune(graph)
    onnx.save(model, str(built / GRAPH))


def _width(graph: onnx.GraphProto) -> int:
    """Numbers of a state: those of the last norm's weight."""
    return next(
        int(tensor.dims[0])
        for tensor in graph.initializer
        if tensor.name.endswith("final_norm_layernorm.weight")
    )


def _ending(states: str, vectors: bool) -> list[onnx.NodeProto]:
    import onnx

    last = onnx.helper.make_node("Reshape", [_LAST, _COLUMN], ["/pool/last"], "/pool/Reshape")
    pool = onnx.helper.make_node(
        "GatherND", [states, "/pool/last"], ["/pool/output_0"], "/pool/GatherND", batch_dims=1
    )
    if vectors:
        unit = onnx.helper.make_node(
            "LpNormalization", ["/pool/output_0"], [VECTORS], "/normalize/LpNormalization"
        )
        return [last, pool, unit]
    product = onnx.helper.make_node(
        "MatMul", ["/pool/output_0", "score.weight"], ["/score/output_0"], "/score/MatMul"
    )
    chance = onnx.helper.make_node("Sigmoid", ["/score/output_0"], [SCORES], "/score/Sigmoid")
    return [last, pool, product, chance]


def _forget(graph: onnx.GraphProto) -> None:
    """Let keys and values be those of this pass alone: none are taken, and none are given."""
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            node.input[_PAST] = ["", ""]
            del node.output[1:]
    kept = [entry for entry in graph.input if not entry.name.startswith("past_key_values.")]
    del graph.input[:]
    graph.input.extend(kept)


def _embedding(built: Path, graph: onnx.GraphProto) -> None:
    """Store the embedding as it is looked up: the builder stores it as the output matrix, and the
    engine would make a copy of it at every start."""
    turned = next((node for node in graph.node if node.name.startswith(_LOOKUP)), None)
    if turned is None or turned.op_type not in ("Transpose", "Reshape"):
        return
    tensor = next(entry for entry in graph.initializer if entry.name == turned.input[0])
    if turned.op_type == "Reshape":
        # Rows in blocks: the same bytes as rows.
        dims = [tensor.dims[0], int(np.prod(tensor.dims[1:]))]
    else:
        _transpose(built, tensor)
        dims = list(tensor.dims)[::-1]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    for node in graph.node:
        taken = [turned.input[0] if name == turned.output[0] else name for name in node.input]
        node.input[:] = taken
    graph.node.remove(turned)


def _transpose(built: Path, tensor: Any) -> None:
    import onnx

    external = {entry.key: entry.value for entry in tensor.external_data}
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if not external:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.raw_data = np.ascontiguousarray(values.T).tobytes()
        return
    stored = np.memmap(
        built / external["location"],
        kind,
        "r+",
        int(external.get("offset", 0)),
        tuple(tensor.dims),
    )
    stored.reshape(-1)[:] = np.ascontiguousarray(stored.T).reshape(-1)
    stored.flush()


def _prune(graph: onnx.GraphProto) -> None:
    """Leave out nodes and values that nothing needs any more."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    made = {name for node in kept for name in node.output}
    values = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(values)


def _foreign() -> PackError:
    return bad_input(
        "The model builder's graph does not end in an output matrix.",
        "Install the tested version: constraints.txt.",
    )
