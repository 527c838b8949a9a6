"""Graphs that nobody's converter wrote: every one is refused in a sentence, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packager.errors import ExitCode, PackError
from targets.onnxruntime import given as onnx_given
from targets.openvino import given as openvino_given

pytestmark = pytest.mark.engine

_PRODUCT = "/model/layers.{}/mlp/down_proj/MatMul"


def onnx_graph(path: Path, *nodes: Any, **constants: Any) -> Path:
    """A graph of a few nodes, with these arrays as its constants."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def node(operator: str, *inputs: str, name: str = "n", **attributes: int) -> onnx.NodeProto:
    made: onnx.NodeProto = helper.make_node(operator, inputs, [operator], name=name, **attributes)
    return made


def test_nodes_without_their_inputs_and_matrices_without_dimensions_are_refused(
    tmp_path: Path,
) -> None:
    square, product = np.zeros((4, 4), np.float32), node("MatMul", "x", "w", name=_PRODUCT)
    packed = np.zeros((4, 4), np.uint8)
    rows: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("lacks an input", [node("MatMul", "x")], {}),
        ("lacks an input", [node("MatMulNBits", "x", N=4, K=4, block_size=32)], {}),
        ("lacks an input", [product, node("Reshape"), node("Gather", "Reshape", "input_ids")], {}),
        (
            "a matrix a dimension",
            [product, node("GatherBlockQuantized", "q", "input_ids")],
            {"q": np.zeros((), np.uint8)},
        ),
        ("of 0 bits", [product, node("GatherBlockQuantized", "q", "input_ids", bits=0)],
         {"q": packed}),
        ("in 9 dimensions", [product], {"q": np.zeros([1] * 9, np.uint8)}),
    ]  # fmt: skip
    for words, nodes, constants in rows:
        path = onnx_graph(tmp_path / "model.onnx", *nodes, w=square, **constants)
        with pytest.raises(PackError, match=words) as caught:
            onnx_given.read(path)
        assert caught.value.exit_code == ExitCode.INPUT, words


def test_a_number_of_a_layer_that_no_integer_holds_is_no_layer(tmp_path: Path) -> None:
    product = node("MatMul", "x", "w", name=_PRODUCT.format("9" * 5000))
    path = onnx_graph(
        tmp_path / "model.onnx",
        product,
        node("Gather", "w", "input_ids"),
        w=np.zeros((4, 4), np.float32),
    )
    assert onnx_given.read(path).products[0].layer is None


def openvino_graph(path: Path, layers: list[str], edges: list[tuple[int, int, int]]) -> Path:
    """A graph of layers, numbered as they stand, and edges (from, to, port)."""
    rows = "".join(
        f'<layer id="{number}" {text}</layer>' for number, text in enumerate(layers)
    ) + "</layers><edges>" + "".join(
        f'<edge from-layer="{source}" to-layer="{reader}" to-port="{port}"/>'
        for source, reader, port in edges
    )  # fmt: skip
    path.write_text(f"<net><layers>{rows}</edges></net>", "utf-8")
    return path


def constant(kind: str = "u4", shape: str = "4,4") -> str:
    return f'type="Const"><data element_type="{kind}" shape="{shape}"/>'


def test_types_and_sizes_that_no_constant_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "openvino_model.xml"
    for text in ("u²", "u" + "9" * 5000, "u4\x9b2J", "I4", ""):
        openvino_graph(path, [constant(text)], [])
        with pytest.raises(PackError, match="has the type") as caught:
            openvino_given.read(path)
        assert caught.value.exit_code == ExitCode.INPUT
    openvino_graph(path, [constant(shape=",".join(["9" * 18] * 9))], [])
    with pytest.raises(PackError, match="more than 8 dimensions"):
        openvino_given.read(path)


def test_a_circle_of_conversions_ends(tmp_path: Path) -> None:
    path = openvino_graph(
        tmp_path / "openvino_model.xml",
        [constant(), 'type="Multiply">', 'type="Convert">', 'type="Convert">'],
        [(0, 1, 0), (2, 1, 1), (3, 2, 0), (2, 3, 0)],
    )
    assert [matrix.per_scale for matrix in openvino_given.read(path).matrices] == [0]


def test_a_graph_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "openvino_model.xml"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(PackError, match="at most 268435456"):
        openvino_given.read(path)
