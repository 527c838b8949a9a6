"""An adapter for onnxruntime-genai: inputs in the base's graph that are empty until there is one,
and a .onnx_adapter that fills them.

Source: onnxruntime, docs of LoRA adapters and onnxruntime/lora: an adapter's arrays stand for
inputs of the graph by their names; an input with a value of its own need not be given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packager.checkpoint import TensorInfo, low_rank
from packager.checkpoint.numbers import read, to_float32
from packager.errors import bad_input, usage
from packager.json_values import JsonObject
from packager.runtime import Report

FILE = "adapter.onnx_adapter"
_DOWN, _UP = ".lora_A", ".lora_B"
_NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+_proj)/MatMul\w*")
_LAYER = re.compile(r"model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj")
_PACKED = "qkv_proj"


def build(report: Report, *, checkpoint: str, out: str) -> JsonObject:
    """A job, see packager.package.adapters. Raises PackError (usage) for what cannot be added."""
    # Late: a session needs no writer.
    from onnxruntime import AdapterFormat, OrtValue

    _, _, added = low_rank.of_folder(Path(checkpoint))
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer, row in sorted(added.matrices.items()):
        if not _LAYER.fullmatch(layer):
            raise usage(
                f"The graphs of ONNX Runtime have no input for {layer!r}.",
                "Build the whole model with --lora.",
            )
        up = _floats(row.up).astype(np.float64).T * row.scaling
        arrays[f"{layer}{_DOWN}"] = np.ascontiguousarray(_floats(row.down).T)
        arrays[f"{layer}{_UP}"] = np.ascontiguousarray(up, np.float32)
    path = Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = AdapterFormat()
    writer.set_adapter_version(1)
    writer.set_model_version(1)
    writer.set_parameters(
        {name: OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    )
    writer.export_adapter(str(path))
    size = path.stat().st_size
    return {"artifact_bytes": size, "rank": added.rank, "matrices": len(added.matrices)}


def _floats(tensor: TensorInfo) -> NDArray[np.float32]:
    return np.ascontiguousarray(to_float32(read(tensor)), np.float32)


def given(settings: JsonObject) -> Path | None:
    """The adapter that a session is opened with; see packager.session.Session. Raises PackError
    (usage) for several."""
    rows: Any = settings.get("adapters") or []
    if len(rows) > 1:
        raise usage("ONNX Runtime adds one adapter at a time.", "Name one with --adapter.")
    return Path(rows[0]["path"]) if rows else None


def add_inputs(graph: Path) -> None:
    """Give every product of a layer inputs for two matrices, of no columns until an adapter fills
    them, whose product is added. Raises PackError (exit code 6) for a graph without such
    products."""
    # Late: it is a builder's.
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    nodes: list[Any] = []
    sizes = {row.name: row.dims for row in model.graph.initializer}
    heads = _heads(model.graph)
    count = 0
    for node in model.graph.node:
        nodes.append(node)
        matched = _NODE.fullmatch(node.name)
        if matched is None or node.op_type not in ("MatMul", "MatMulNBits"):
            continue
        count += 1
        attributes = {row.name: row.i for row in node.attribute}
        plain = sizes.get(node.input[1], (0, 0))
        columns, rows = attributes.get("K", plain[0]), attributes.get("N", plain[-1])
        layer, block, name = matched.groups()
        parts = [(name, rows)]
        if name == _PACKED:
            queries, keys = heads.get(layer, (0, 0))
            head_rows = rows // max(1, queries + 2 * keys)
            widths = (queries * head_rows, keys * head_rows, keys * head_rows)
            parts = list(zip(("q_proj", "k_proj", "v_proj"), widths, strict=True))
        if sum(width for _, width in parts) != rows or not columns:
            raise bad_input(
                f"{graph} splits {node.name} in no way that is known.",
                "Build it without --adapter-inputs.",
            )
        prefix = f"model.layers.{layer}.{'self_attn' if block == 'attn' else block}"
        nodes += _added(model.graph, node, [(f"{prefix}.{part}", w) for part, w in parts], columns)
    if not count:
        raise bad_input(f"{graph} has no products of layers.", "Build it without --adapter-inputs.")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString())


def _added(graph: Any, node: Any, parts: list[tuple[str, int]], columns: int) -> list[Any]:
    """The nodes that add what an adapter brings to the product of `node`, whose rows belong to the
    layers in `parts`."""
    from onnx import helper

    result, source = node.output[0], node.input[0]
    node.output[0] = f"{result}/base"
    nodes, sums = [], []
    for layer, rows in parts:
        down, up = f"{layer}{_DOWN}", f"{layer}{_UP}"
        _input(graph, down, [columns, None])
        _input(graph, up, [None, rows])
        low, high = f"{layer}/lora_A/output", f"{layer}/lora_B/output"
        nodes.append(helper.make_node("MatMul", [source, down], [low], name=f"{layer}/lora_A"))
        nodes.append(helper.make_node("MatMul", [low, up], [high], name=f"{layer}/lora_B"))
        sums.append(high)
    if len(sums) > 1:
        joined = f"{result}/lora"
        nodes.append(helper.make_node("Concat", sums, [joined], axis=-1, name=joined))
        sums = [joined]
    add = helper.make_node("Add", [f"{result}/base", sums[0]], [result], name=f"{result}/lora_Add")
    return [*nodes, add]


def _input(graph: Any, name: str, size: list[int | None]) -> None:
    """An input of two dimensions, one of them the rank, with a value of rank 0."""
    from onnx import TensorProto, helper, numpy_helper

    shape = [f"{name}.rank" if row is None else row for row in size]
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    empty = np.zeros([row or 0 for row in size], np.float32)
    graph.initializer.append(numpy_helper.from_array(empty, name))


def _heads(graph: Any) -> dict[str, tuple[int, int]]:
    """Heads of queries, and of keys and values, by the number of the layer."""
    heads = {}
    for node in graph.node:
        matched = re.search(r"/layers\.(\d+)/", node.name)
        if node.op_type == "GroupQueryAttention" and matched is not None:
            attributes = {row.name: row.i for row in node.attribute}
            heads[matched[1]] = (attributes.get("num_heads", 0), attributes.get("kv_num_heads", 0))
    return heads
