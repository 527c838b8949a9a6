"""The weights of an ONNX graph of the model builder by the checkpoint's names, as numbers: what is
stored, less its zero points, times its scales.

Source of the layouts: onnxruntime, docs/ContribOperators.md (MatMulNBits, GatherBlockQuantized); of
the names: builders.base of the model builder of onnxruntime-genai 0.18. Importing this imports
onnx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from packager.errors import PackError, bad_input
from packager.inspection.unsafe import shown, whole

_NODE = re.compile(
    r"/(?:model/layers\.(?P<layer>\d{1,6})/(?P<block>attn|mlp)/(?P<name>\w+)|(?P<head>lm_head))/MatMul"
    r"(?:_Q\d+)?"
)
_VECTOR = re.compile(
    r"model\.layers\.(?P<layer>\d{1,6})\.(?P<place>input_layernorm|post_attention_layernorm"
    r"|final_norm_layernorm|attn\.[qk]_norm\.layernorm|attn\.(?:qkv|[qkv])_proj\.Add)"
    r"\.(?P<kind>weight|bias)"
)
_BLOCKS = {"attn": "self_attn", "mlp": "mlp"}
_JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_FLOATS: Mapping[int, tuple[str, Any]] = {
    onnx.TensorProto.FLOAT: ("f32", np.dtype("<f4")),
    onnx.TensorProto.FLOAT16: ("f16", np.dtype("<f2")),
}
_INT4, _UINT4, _UINT8 = onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.UINT8


@dataclass(frozen=True, slots=True)
class Blocks:
    """How numbers are packed: `bits` of each, `block` of them share one of `scales`, and one of
    `zeros`, or all have the same `middle`. `looked_up`: by the embedding, not by a product."""

    bits: int
    block: int
    scales: Any
    zeros: Any
    middle: int
    looked_up: bool = False


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A matrix or a vector that is made of the checkpoint's `parts`, one above the other: `rows` of
    `columns`, its initializer, and how it is packed, None where it holds floats. `turned`: columns
    by rows."""

    parts: tuple[str, ...]
    rows: int
    columns: int
    data: npt.NDArray[Any]
    kind: str
    blocks: Blocks | None = None
    turned: bool = False

    def values(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """The rows from one to another."""
        if self.blocks is not None:
            return self._unpacked(self.blocks, start, stop)
        whole_ = self.data.reshape((self.columns, self.rows) if self.turned else (self.rows, -1))
        piece = whole_[:, start:stop].T if self.turned else whole_[start:stop]
        return np.asarray(piece.astype(np.float64))

    def _unpacked(self, how: Blocks, start: int, stop: int) -> npt.NDArray[np.float64]:
        rows, per_row = stop - start, ceil(self.columns / how.block)
        packed = self.data.reshape(self.rows, -1)[start:stop]
        numbers = unpacked(packed, how.bits)
        wide = per_row * how.block
        # Products pad the last block of a row; look-ups do not.
        numbers = np.pad(numbers[:, :wide], ((0, 0), (0, max(0, wide - numbers.shape[1]))))
        zeros: Any = how.middle
        if how.zeros is not None:
            zeros = unpacked(how.zeros.reshape(self.rows, -1)[start:stop], how.bits)[:, :per_row]
            zeros = self._signed(zeros.reshape(rows, per_row, 1))
        scales = how.scales.reshape(self.rows, per_row)[start:stop].astype(np.float64)
        parts = self._signed(numbers.reshape(rows, per_row, how.block)) - zeros
        return np.asarray((parts * scales[:, :, None]).reshape(rows, wide)[:, : self.columns])

    def _signed(self, numbers: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """What the bits of numbers mean, before zero points are taken off."""
        wide = numbers.astype(np.float64)
        return np.where(wide > 7, wide - 16, wide) if self.kind == "int4 signed" else wide


def unpacked(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Rows of packed numbers, the lowest bits of a byte first."""
    if bits == 8:
        return packed
    parts = [packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)


def weights_of(path: Path) -> list[StoredWeights]:
    """Every weight of model.onnx that has the place of a checkpoint's tensor. Raises PackError
    (exit code 6) for one that cannot be read; that the graph is safe is looked at before."""
    reader = _Reader(path)
    try:
        return [*reader.products(), *reader.embedding(), *reader.vectors()]
    except (IndexError, KeyError, ValueError) as error:
        raise reader.wrong(
            f"something is not as the model builder writes it ({shown(error)})"
        ) from None


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._graph = onnx.load(str(path), load_external_data=False).graph
        self._weights: Mapping[str, Any] = {row.name: row for row in self._graph.initializer}
        self._makers = {name: node for node in self._graph.node for name in node.output}

    def products(self) -> Iterator[StoredWeights]:
        """The matrices of products."""
        for node in self._graph.node:
            matched = _NODE.fullmatch(node.name)
            if matched is None or node.op_type not in ("MatMul", "MatMulNBits"):
                continue
            if matched["head"]:
                parts: tuple[str, ...] = (_OUTPUT,)
            else:
                head = f"model.layers.{int(matched['layer'])}.{_BLOCKS[matched['block']]}"
                inner = _JOINED.get(matched["name"], (matched["name"],))
                parts = tuple(f"{head}.{name}.weight" for name in inner)
            if node.op_type == "MatMulNBits":
                yield self._packed(node, parts)
            else:
                root = self._root(node.input[1])
                # As the product takes it, columns by rows, unless it is turned first.
                yield self._plain(parts, root, turned=root == node.input[1])

    def _packed(self, node: Any, parts: tuple[str, ...]) -> StoredWeights:
        told = {row.name: row.i for row in node.attribute}
        rows, columns, block = (told[key] for key in ("N", "K", "block_size"))
        bits = told.get("bits", 4)
        if bits not in (2, 4, 8) or block <= 0 or any(node.input[4:]):
            raise self.wrong(f"{shown(node.name)} is packed in another way")
        zeros = None
        if len(node.input) > 3 and node.input[3]:
            zeros = self._numbers(node.input[3], np.dtype("u1"))
        scales = self._float(node.input[2])
        data = self._numbers(node.input[1], np.dtype("u1"))
        how = Blocks(bits, block, scales, zeros, 1 << bits - 1)
        row = StoredWeights(parts, rows, columns, data, f"int{bits}", how)
        self._refuse_sizes(node.name, row, how, block * ceil(columns / block))
        return row

    def embedding(self) -> Iterator[StoredWeights]:
        """The matrix that tokens are looked up in, unless it is that of a product."""
        node = next(
            row
            for row in self._graph.node
            if row.op_type in ("Gather", "GatherBlockQuantized") and "input_ids" in row.input
        )
        root = self._root(node.input[0])
        products = (row for row in self._graph.node if row.op_type in ("MatMul", "MatMulNBits"))
        if any(self._root(row.input[1]) == root for row in products if len(row.input) > 1):
            return
        if node.op_type == "Gather":
            yield self._plain((_EMBEDDING,), root, turned=False)
            return
        told = {row.name: row.i for row in node.attribute}
        stored, block = self._weights[root], told["block_size"]
        bits = told.get("bits", 4)
        per_byte = 8 // bits
        numbers = stored.data_type in (_INT4, _UINT4)
        if block <= 0 or (not numbers and stored.data_type != _UINT8):
            raise self.wrong("tokens are looked up in numbers that are packed in another way")
        rows = stored.dims[0]
        columns = prod(stored.dims[1:]) * (1 if numbers else per_byte)
        has_zeros = len(node.input) > 3 and bool(node.input[3])
        zeros = self._numbers(node.input[3], np.dtype("u1")) if has_zeros else None
        middle = 0 if numbers else 1 << bits - 1
        scales = self._float(node.input[2])
        how = Blocks(bits, block, scales, zeros, middle, looked_up=True)
        kind = "int4 signed" if stored.data_type == _INT4 else f"int{bits}"
        data = self._numbers(root, np.dtype("u1"))
        row = StoredWeights((_EMBEDDING,), rows, columns, data, kind, how)
        self._refuse_sizes(node.name, row, how, columns)
        yield row

    def vectors(self) -> Iterator[StoredWeights]:
        """Norms and biases."""
        for name in self._weights:
            matched = _VECTOR.fullmatch(name)
            if matched is not None:
                data = self._float(name)
                parts = _vector_parts(matched["layer"], matched["place"], matched["kind"])
                kind = _FLOATS[self._weights[name].data_type][0]
                yield StoredWeights(parts, 1, data.size, data, kind)

    def _plain(self, parts: tuple[str, ...], name: str, *, turned: bool) -> StoredWeights:
        first, second = self._weights[name].dims
        rows, columns = (second, first) if turned else (first, second)
        kind, data = _FLOATS[self._weights[name].data_type][0], self._float(name)
        if data.size != rows * columns:
            raise self.wrong(f"{shown(name)} has not as many numbers as its shape says")
        return StoredWeights(parts, rows, columns, data, kind, turned=turned)

    def _float(self, name: str) -> npt.NDArray[Any]:
        return self._numbers(name, _FLOATS[self._weights[name].data_type][1])

    def _numbers(self, name: str, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """A tensor's bytes as numbers of a type, mapped where they lie beside the graph."""
        row = self._weights[name]
        place = {entry.key: entry.value for entry in row.external_data}
        if not place:
            return np.frombuffer(row.raw_data, kind)
        offset, length = (whole(place.get(key, "0")) for key in ("offset", "length"))
        if offset is None or not length:
            raise self.wrong(f"{shown(name)} has no place in its file")
        file = self._path.parent / place["location"]
        return np.memmap(file, kind, "r", offset, (length // kind.itemsize,))

    def _root(self, name: str) -> str:
        """The initializer that a value is, whatever turns or widens it."""
        for _ in range(8):
            node = self._makers.get(name)
            if node is None or node.op_type not in ("Reshape", "Transpose", "Cast"):
                break
            name = node.input[0]
        return name

    def _refuse_sizes(self, name: str, row: StoredWeights, how: Blocks, wide: int) -> None:
        """Raise PackError (exit code 6) where packed numbers, scales or zero points are not as many
        as the rows of `wide` numbers need."""
        per_row = ceil(row.columns / how.block)
        wanted = row.rows * wide * how.bits // 8
        zeros = row.rows * ceil(per_row * how.bits / 8)
        if (
            wide * how.bits % 8
            or row.data.size != wanted
            or how.scales.size != row.rows * per_row
            or (how.zeros is not None and how.zeros.size != zeros)
        ):
            raise self.wrong(f"the blocks of {shown(name)} are not as many as its rows need")

    def wrong(self, what: str) -> PackError:
        """The exception for weights that are not as they should be."""
        return bad_input(
            f"{self._path} holds weights that cannot be compared: {what}.",
            "Compare what both answer: `adopt FOLDER --target NAME --against CHECKPOINT`.",
        )


def _vector_parts(layer: str, place: str, kind: str) -> tuple[str, ...]:
    """The checkpoint's names of a vector."""
    head = f"model.layers.{int(layer)}"
    if place == "final_norm_layernorm":
        return ("model.norm.weight",)
    if not place.startswith("attn."):
        return (f"{head}.{place}.{kind}",)
    module = place.split(".")[1]
    return tuple(f"{head}.self_attn.{name}.{kind}" for name in _JOINED.get(module, (module,)))
