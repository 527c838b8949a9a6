"""Damage to the artifacts of embedders and rerankers that the gate has to stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint, retrieval_file
from tests.support.retrieval import END, edit


def _graph(change: Callable[[Any], None]) -> Callable[[Path, Path], None]:
    """A change of an ONNX graph."""

    def damage(artifact: Path, source: Path) -> None:
        import onnx

        path = artifact / "model.onnx"
        model = onnx.load(str(path), load_external_data=False)
        change(model.graph)
        onnx.save(model, str(path))

    return damage


def _node(graph: Any, kind: str) -> Any:
    return next(node for node in graph.node if node.op_type == kind)


def _mean(graph: Any) -> None:
    import onnx

    pool = _node(graph, "GatherND")
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    graph.initializer.append(axis)
    mean = onnx.helper.make_node("ReduceMean", [pool.input[0], "axis"], pool.output, keepdims=0)
    pool.CopyFrom(mean)


def _unit(graph: Any) -> None:
    import onnx

    node = _node(graph, "LpNormalization")
    node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output))


def _swap(graph: Any) -> None:
    import onnx

    row = next(tensor for tensor in graph.initializer if tensor.name == "score.weight")
    row.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(row), row.name))


def _json(name: str, **changes: Any) -> Callable[[Path, Path], None]:
    return lambda artifact, source: edit(artifact / name, **changes)


def _no_end(artifact: Path, source: Path) -> None:
    from targets.openvino.tokenizer import write_tokenizer

    write_tokenizer(Checkpoint.open(source), artifact, "rerank")


def _swapped_weights(artifact: Path, source: Path) -> None:
    row = retrieval_file.answers(Checkpoint.open(source))
    path = artifact / "openvino_model.bin"
    data = path.read_bytes()
    assert data.count(row.tobytes()) == 1
    path.write_bytes(data.replace(row.tobytes(), (-row).tobytes()))


def _left(artifact: Path, source: Path) -> None:
    path = artifact / "openvino_tokenizer.xml"
    text = path.read_text("utf-8")
    assert 'pad_right="true"' in text
    path.write_text(text.replace('pad_right="true"', 'pad_right="false"'), "utf-8")


PADDING = {
    "strategy": "BatchLongest",
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": END,
}
DAMAGES: dict[str, dict[str, tuple[str, Callable[[Path, Path], None], str]]] = {
    "openvino": {
        "pooling": ("embed", _json("retrieval.json", pooling="mean"), "pools by mean"),
        "end": ("embed", _no_end, "one token less after"),
        "length": ("embed", _json("retrieval.json", normalize=False), "has the length"),
        "padding": ("embed", _left, "pads on the left"),
        "answers": ("rerank", _swapped_weights, "score_mean"),
    },
    "onnxruntime": {
        "pooling": ("embed", _graph(_mean), "cosine_mean"),
        "end": ("embed", _json("tokenizer.json", post_processor=None), "one token less after"),
        "length": ("embed", _graph(_unit), "has the length"),
        "padding": ("embed", _json("tokenizer.json", padding=PADDING), "pads on the left"),
        "answers": ("rerank", _graph(_swap), "score_mean"),
    },
}
