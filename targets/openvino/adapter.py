"""An adapter for openvino-genai: the matrices as safetensors, under the names of the base's layers,
and the same matrices added to a graph that is compiled here.

Source: openvino.genai, src/cpp/src/lora/adapter.cpp: without an `alpha` of its own a matrix is
added as it is, so the scale is multiplied into the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packager.checkpoint import TensorInfo, low_rank
from packager.checkpoint.header import read_header
from packager.checkpoint.numbers import read, to_float32
from packager.errors import usage
from packager.json_values import JsonObject
from packager.runtime import Report

FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def build(report: Report, *, checkpoint: str, out: str) -> JsonObject:
    """A job, see packager.package.adapters. Raises PackError (usage) for what cannot be added."""
    # Late: a session needs no writer.
    from safetensors.numpy import save_file

    _, _, added = low_rank.of_folder(Path(checkpoint))
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer, row in added.matrices.items():
        up = _floats(row.up).astype(np.float64) * row.scaling
        tensors[f"{_PREFIX}{layer}{_DOWN}"] = _floats(row.down)
        tensors[f"{_PREFIX}{layer}{_UP}"] = np.ascontiguousarray(up, np.float32)
    path = Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})
    size = path.stat().st_size
    return {"artifact_bytes": size, "rank": added.rank, "matrices": len(added.matrices)}


def _floats(tensor: TensorInfo) -> NDArray[np.float32]:
    return np.ascontiguousarray(to_float32(read(tensor)), np.float32)


def add(model: Any, adapters: Sequence[tuple[Path, float]]) -> None:
    """Add the matrices of adapters, each times its scale, to the products of a graph.

    Raises PackError (usage) where the graph has no product of that name.
    """
    # Late: it loads the engine.
    from openvino import opset13 as operators

    products = {
        node.get_friendly_name(): node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
    }
    for path, scale in adapters:
        tensors = {row.name: row for row in read_header(path)}
        for name in sorted(tensors):
            if not name.endswith(_DOWN):
                continue
            layer = name.removeprefix(_PREFIX).removesuffix(_DOWN)
            node = _product(products, layer)
            up = _floats(tensors[f"{name.removesuffix(_DOWN)}{_UP}"]) * np.float32(scale)
            down = operators.matmul(node.input_value(0), _floats(tensors[name]), False, True)
            product = node.output(0)
            users = product.get_target_inputs()
            total = operators.add(product, operators.matmul(down, up, False, True))
            for user in users:
                user.replace_source_output(total.output(0))


def _product(products: Mapping[str, Any], layer: str) -> Any:
    """The one product whose name contains the layer's, which is how openvino-genai finds it."""
    nodes = [node for title, node in products.items() if layer in title]
    if len(nodes) != 1:
        raise usage(
            f"The graph of this base has {len(nodes) or 'no'} layers called {layer!r}.",
            "Build the base again with this version of qwen-pack, or merge with --lora.",
        )
    return nodes[0]


def given(settings: JsonObject) -> list[tuple[Path, float]]:
    """The adapters that a session is opened with; see packager.session.Session."""
    rows: Any = settings.get("adapters") or []
    return [(Path(row["path"]), float(row["scale"])) for row in rows]
