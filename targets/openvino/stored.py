"""The weights of an OpenVINO graph by the checkpoint's names, as numbers: what is stored, less its
zero points, times its scales.

Names are those of the constants, or of the operators that read them: optimum-intel calls them after
the modules of the checkpoint, and so do we.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from packager.errors import PackError, bad_input
from packager.inspection.unsafe import shown, whole
from packager.limits import EXPERTS
from targets.openvino import given
from targets.openvino.given import FLOATS, INDEXES, WIDENED, Layer, dimensions

_NAME = re.compile(
    r"(?:^|[._])(?P<module>model\.embed_tokens|model\.norm|lm_head"
    r"|model\.layers\.\d{1,6}\.(?:self_attn\.(?:[qkvo]_proj|[qk]_norm)"
    r"|mlp\.(?:(?:shared_expert\.)?(?:gate|up|down)_proj|gate|shared_expert_gate)"
    r"|input_layernorm|post_attention_layernorm))"
    r"(?:\._openvino_orig_weight|\.(?P<kind>weight|bias))?(?:/.*)?$"
)
_EXPERTS = re.compile(
    r"(?:^|[._])(?P<module>model\.layers\.\d{1,6}\.mlp\.experts)"
    r"(?:\.(?P<part>down_proj)|/prim::ListUnpack/VariadicSplit\.(?P<half>[01]))(?:/.*)?$"
)
"""All experts of a layer in one constant; gate and up are the halves of one that the exporter
split."""
_HALVES_OF_EXPERTS = ("gate_proj", "up_proj")
_EXPERT = ".experts.*."
_ONE_ROW = ".shared_expert_gate.weight"
_PARAMETER = {"Multiply": "weight", "Add": "bias", "MatMul": "weight", "Gather": "weight"}
"""Whose parameter a constant is that such an operator reads."""
_TYPES: Mapping[str, Any] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
}
_HALVES = ("i4", "u4")
_PIECE = 1 << 20
"""Numbers that are looked at at once."""
_FURTHEST = 8


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant in a file of weights: its type, its shape, and where it begins."""

    name: str
    kind: str
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def numbers(self, first: int, end: int) -> npt.NDArray[np.float64]:
        """The numbers from one to another, in the order in which they are stored."""
        if self.kind in _HALVES:
            return self._halves(first, end)
        kind = _TYPES[self.kind]
        with self.file.open("rb") as file:
            file.seek(self.offset + first * kind.itemsize)
            data = file.read((end - first) * kind.itemsize)
        return np.asarray(np.frombuffer(data, kind).astype(np.float64))

    def _halves(self, first: int, end: int) -> npt.NDArray[np.float64]:
        """Numbers of 4 bits, two a byte, the lower half first."""
        start = first // 2
        with self.file.open("rb") as file:
            file.seek(self.offset + start)
            data = np.frombuffer(file.read((end + 1) // 2 - start), np.uint8)
        both = np.stack([data & 15, data >> 4], axis=1).reshape(-1).astype(np.float64)
        values = both[first - 2 * start :][: end - first]
        return np.where(values > 7, values - 16, values) if self.kind == "i4" else values


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A tensor of the checkpoint by its `name`: `rows` rows of `columns` columns, with scales and
    zero points where there are any. `zeros` may be one number for all. The experts of a layer stand
    one above the other: their name has a star for the number, and there are `experts` of them."""

    name: str
    data: Constant
    rows: int
    columns: int
    scales: Constant | None = None
    zeros: Constant | None = None
    experts: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the checkpoint's tensors that it is."""
        if not self.experts:
            return (self.name,)
        return tuple(self.name.replace("*", str(number)) for number in range(self.experts))

    @property
    def per_scale(self) -> int:
        """Numbers that share a scale; 0 where there is none."""
        return 0 if self.scales is None else self.data.elements // self.scales.elements

    def middle(self) -> float | None:
        """The zero point that all groups have; None where they differ, or have none."""
        if self.zeros is None:
            return None
        first = float(self.zeros.numbers(0, 1)[0])
        count = self.zeros.elements
        pieces = ((start, min(start + _PIECE, count)) for start in range(0, count, _PIECE))
        return (
            first if all((self.zeros.numbers(*piece) == first).all() for piece in pieces) else None
        )

    def values(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """The rows from one to another."""
        wide, rows = self.columns, stop - start
        numbers = self.data.numbers(start * wide, stop * wide)
        if self.scales is None:
            return numbers.reshape(rows, wide)
        groups = wide // self.per_scale
        first, end = start * groups, stop * groups
        parts = numbers.reshape(rows * groups, self.per_scale)
        if self.zeros is not None:
            one = self.zeros.elements == 1
            parts = parts - self.zeros.numbers(*((0, 1) if one else (first, end))).reshape(-1, 1)
        scaled = parts * self.scales.numbers(first, end).reshape(-1, 1)
        return np.asarray(scaled.reshape(rows, wide))


def weights_of(graph: Path) -> list[StoredWeights]:
    """Every constant of a graph that has the name of a checkpoint's tensor; the weights lie in the
    file of the same name with .bin.

    Raises PackError (exit code 6) for one that cannot be read.
    """
    layers = given.followed(graph)
    try:
        rows = list(_rows(layers, graph.with_suffix(".bin")))
    except (KeyError, ValueError) as error:
        raise _unreadable(graph, shown(error)) from None
    for row in rows:
        _refuse_unreadable(graph, row)
    return rows


def _rows(layers: Mapping[int, Layer], weights: Path) -> Iterator[StoredWeights]:
    helpers: set[int | None] = set()
    named: list[tuple[str, Layer, int | None, int | None]] = []
    for number, layer in layers.items():
        kind = layer.data.get("element_type")
        if layer.kind != "Const" or kind in INDEXES or prod(dimensions(layer)) < 2:
            continue
        scales, zeros = (None, None) if kind in FLOATS else given.beside(layers, number)
        helpers |= {scales, zeros}
        name = _name_of(layers, number)
        if name is not None:
            named.append((name, layer, scales, zeros))
    for name, layer, scales, zeros in named:
        if any(layer is layers[helper] for helper in helpers if helper is not None):
            continue
        data = _constant(layer, weights)
        rows = _rows_of(name, data.shape)
        yield StoredWeights(
            *(name, data, rows, data.elements // rows),
            None if scales is None else _constant(layers[scales], weights),
            None if zeros is None else _constant(layers[zeros], weights),
            data.shape[0] if _EXPERT in name else 0,
        )


def _rows_of(name: str, shape: tuple[int, ...]) -> int:
    """The sizes before the columns, which may be divided into groups."""
    if _EXPERT in name:
        if shape[0] > EXPERTS:
            raise ValueError(f"{name} has {shape[0]} experts, and {EXPERTS} are the most")
        return prod(shape[:2])
    wide = [size for size in shape if size > 1]
    return 1 if len(wide) < 2 or name.endswith(_ONE_ROW) else wide[0]


def _name_of(layers: Mapping[int, Layer], number: int) -> str | None:
    """The checkpoint's name of a constant: its own, or that of the module which reads it."""
    stacked = _EXPERTS.search(layers[number].name)
    if stacked is not None:
        part = stacked["part"] or _HALVES_OF_EXPERTS[int(stacked["half"])]
        return f"{stacked['module']}.*.{part}.weight"
    matched = _NAME.search(layers[number].name)
    if matched is not None:
        return f"{matched['module']}.{matched['kind'] or 'weight'}"
    for _ in range(_FURTHEST):
        reader = next(iter(layers[number].readers), None)
        if reader is None:
            return None
        layer = layers[reader]
        if layer.kind not in WIDENED:
            matched = _NAME.search(layer.name)
            kind = _PARAMETER.get(layer.kind)
            return f"{matched['module']}.{kind}" if matched and kind else None
        number = reader
    return None


def _constant(layer: Layer, weights: Path) -> Constant:
    data = layer.data
    offset, size = (whole(data[key]) for key in ("offset", "size"))
    kind, shape = data["element_type"], dimensions(layer)
    if kind not in _TYPES and kind not in _HALVES:
        raise ValueError(f"{layer.name} has the type {kind}, which is not compared here")
    bits = 4 if kind in _HALVES else 8 * _TYPES[kind].itemsize
    if offset is None or size != (prod(shape) * bits + 7) // 8:
        raise ValueError(f"{layer.name} has not as many bytes as its shape says")
    return Constant(layer.name, kind, shape, weights, offset)


def _refuse_unreadable(graph: Path, row: StoredWeights) -> None:
    """Raise PackError (exit code 6) where scales or zero points do not divide a tensor's rows."""
    scales, zeros = row.scales, row.zeros
    if scales is None:
        if row.data.kind not in FLOATS:
            raise _unreadable(graph, f"{row.name} has no scales")
        return
    shared = scales.elements and row.data.elements % scales.elements == 0
    if not shared or row.columns % row.per_scale:
        raise _unreadable(graph, f"{row.name} has {scales.elements} scales")
    if zeros is not None and zeros.elements not in (1, scales.elements):
        raise _unreadable(graph, f"{row.name} has {zeros.elements} zero points")


def _unreadable(graph: Path, what: str) -> PackError:
    return bad_input(
        f"{graph} holds weights that cannot be compared: {what}.",
        "Compare what both answer: `adopt FOLDER --target NAME --against CHECKPOINT`.",
    )
