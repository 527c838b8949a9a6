"""The graph of an ONNX model that somebody else wrote for onnxruntime-genai: its matrices and how
each is stored.

Source of the operators: onnxruntime, docs/ContribOperators.md (MatMulNBits, GatherBlockQuantized);
of the names: builders.base of the model builder of onnxruntime-genai 0.18. Importing this imports
onnx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx

from packager.errors import bad_input
from packager.inspection.unsafe import shown, whole

_LARGEST = 64 << 20
"""Bytes of a graph without its weights. That of the largest Qwen has 2 MB."""
_LAYER = re.compile(r"/layers\.([0-9]{1,6})/")
_FLOATS = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
}
_DIMENSIONS = 8
_PACKED_BITS = (2, 4, 8)
"""Of the numbers that GatherBlockQuantized looks up."""
_GET_AGAIN = "Get the model again, or build it from the checkpoint."


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that a product or a look-up reads: its place by the node's name, rows and columns,
    and its bits. `block` weights share a scale, 0 where nothing is quantized."""

    name: str
    rows: int
    columns: int
    bits: int
    kind: str
    block: int = 0
    zero_points: bool = False
    accuracy_level: int = 0

    @property
    def mode(self) -> str:
        """How it is stored, e.g. `int4_asym_b32`."""
        if not self.block:
            return self.kind
        return f"int{self.bits}_{'asym' if self.zero_points else 'sym'}_b{self.block}"

    @property
    def layer(self) -> int | None:
        """Which layer it is in."""
        matched = _LAYER.search(self.name)
        return None if matched is None else int(matched[1])

    @property
    def matrix(self) -> str:
        """Which of a layer's matrices it is, e.g. `down_proj`."""
        return self.name.rpartition("/")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Graph:
    """What was read: the matrices of products, the embedding where it is a matrix of its own (None:
    the output matrix is looked up in), the type of the numbers in between, and whether queries have
    biases and norms."""

    products: tuple[Matrix, ...]
    embedding: Matrix | None
    precision: str
    qkv_bias: bool
    qk_norm: bool


def read(path: Path) -> Graph:
    """Read model.onnx, without its weights. Raises PackError (exit code 6) for what is no decoder
    of the model builder; that it is safe to open is looked at before."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise bad_input(
            f"{path} has {size} bytes, and a graph without its weights at most {_LARGEST}.",
            "Save it with its weights as external data.",
        )
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        # protobuf's DecodeError, whose module is not onnx's to promise.
        raise bad_input(f"{path} is not an ONNX graph: {shown(error)}.", _GET_AGAIN) from None
    try:
        return _Reader(path, graph).graph()
    except IndexError:
        raise bad_input(
            f"{path} cannot be followed: a node lacks an input, or a matrix a dimension.",
            _GET_AGAIN,
        ) from None


class _Reader:
    """A graph's nodes, by what they read."""

    def __init__(self, path: Path, graph: Any) -> None:
        self._path, self._graph = path, graph
        self._weights: Mapping[str, Any] = {row.name: row for row in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        for row in graph.initializer:
            self._refuse_length(row)

    def graph(self) -> Graph:
        """All of it."""
        names = [node.name for node in self._graph.node]
        products = tuple(filter(None, map(self._product, self._graph.node)))
        output = next((row for row in self._graph.output if row.name == "logits"), None)
        if output is None or not products:
            raise self._wrong("is not a decoder of the model builder: it has no logits")
        precision = _FLOATS.get(output.type.tensor_type.elem_type)
        if precision is None:
            raise self._wrong("gives logits of an unknown type")
        return Graph(
            products,
            self._embedding(),
            precision,
            any("/attn/qkv_proj/Add" in name or "/attn/q_proj/Add" in name for name in names),
            any("/attn/q_norm/" in name for name in names),
        )

    def _product(self, node: Any) -> Matrix | None:
        if node.op_type == "MatMulNBits":
            return self._blocks(node)
        if node.op_type != "MatMul":
            return None
        weight = self._weights.get(self._root(node.input[1]))
        if weight is None or len(weight.dims) != 2 or 0 in weight.dims:
            # The last: an input for an adapter, empty until there is one.
            return None
        # Stored as the product takes it, unless it is turned first: columns by rows.
        turned = node.input[1] not in self._weights
        columns, rows = reversed(weight.dims) if turned else weight.dims
        return self._plain(node.name, rows, columns, weight)

    def _blocks(self, node: Any) -> Matrix:
        attributes = {row.name: row.i for row in node.attribute}
        rows, columns, bits, block = (
            attributes.get(key, 0) for key in ("N", "K", "bits", "block_size")
        )
        weight = self._weights.get(node.input[1])
        bits = bits or 4
        if min(rows, columns, block) <= 0 or weight is None:
            raise self._wrong(f"has the product {shown(node.name)} without a matrix")
        wanted = rows * -(-columns // block) * block * bits // 8
        if prod(weight.dims) != wanted:
            raise self._wrong(
                f"has {prod(weight.dims)} bytes of weights for {shown(node.name)} instead of "
                f"{wanted}"
            )
        zero_points = len(node.input) > 3 and bool(node.input[3])
        level = attributes.get("accuracy_level", 0)
        return Matrix(
            node.name, rows, columns, bits, f"int{bits}", block, zero_points, max(level, 0)
        )

    def _embedding(self) -> Matrix | None:
        node = next(
            (
                row
                for row in self._graph.node
                if row.op_type in ("Gather", "GatherBlockQuantized") and "input_ids" in row.input
            ),
            None,
        )
        if node is None:
            raise self._wrong("looks no tokens up")
        name = self._root(node.input[0])
        weight = self._weights.get(name)
        if weight is None:
            raise self._wrong("looks tokens up in a matrix that it does not hold")
        if any(self._root(row.input[1]) == name for row in self._graph.node if _multiplies(row)):
            return None
        attributes = {row.name: row.i for row in node.attribute}
        if node.op_type == "Gather":
            rows, columns = weight.dims if len(weight.dims) == 2 else (0, 0)
            return self._plain(node.name, rows, columns, weight)
        bits = attributes.get("bits", 4)
        if bits not in _PACKED_BITS:
            raise self._wrong(f"looks tokens up in numbers of {bits} bits")
        rows, packed = weight.dims[0], prod(weight.dims[1:])
        per_byte = 8 // bits if weight.data_type == onnx.TensorProto.UINT8 else 1
        zero_points = len(node.input) > 3 and bool(node.input[3])
        return Matrix(
            *(node.name, rows, packed * per_byte, bits, f"int{bits}"),
            *(attributes.get("block_size", 0), zero_points),
        )

    def _plain(self, name: str, rows: int, columns: int, weight: Any) -> Matrix:
        kind = _FLOATS.get(weight.data_type)
        if kind is None:
            raise self._wrong(f"has the matrix of {shown(name)} in a type that is not a float")
        return Matrix(name, rows, columns, 32 if kind == "fp32" else 16, kind)

    def _root(self, name: str) -> str:
        """The constant that a value is, whatever turns or widens it."""
        for _ in range(8):
            node = self._makers.get(name)
            if node is None or node.op_type not in ("Reshape", "Transpose", "Cast"):
                break
            name = node.input[0]
        return name

    def _refuse_length(self, row: Any) -> None:
        """Outside of the graph a tensor has as many bytes as its shape says."""
        if len(row.dims) > _DIMENSIONS:
            raise self._wrong(f"has {shown(row.name)} in {len(row.dims)} dimensions")
        external = {entry.key: entry.value for entry in row.external_data}
        length = whole(external.get("length", ""))
        if length is None:
            return
        width = {1: 4, 2: 1, 3: 1, 7: 8, 6: 4, 10: 2, 16: 2, 11: 8}.get(row.data_type)
        if width is not None and prod(row.dims) * width != length:
            raise self._wrong(
                f"has {shown(row.name)} in {length} bytes instead of {prod(row.dims) * width}"
            )

    def _wrong(self, what: str) -> Exception:
        return bad_input(f"{self._path} {what}.", _GET_AGAIN)


def _multiplies(node: Any) -> bool:
    return node.op_type in ("MatMul", "MatMulNBits") and len(node.input) > 1
