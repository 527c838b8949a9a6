"""The graph of an OpenVINO model that somebody else wrote: its matrices, how each is stored, and
where it keeps its cache.

Source of the subgraph of a compressed matrix: NNCF, weight_compression/openvino_backend.py: a
constant, widened, less its zero points where it has any, times its scales.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from xml.parsers import expat

from packager.errors import bad_input
from packager.inspection.unsafe import shown, whole

_CHUNK = 1 << 20
_LARGEST = 256 << 20
"""Bytes of a graph without its weights, of which several times as much is kept in memory."""
_MOST_LAYERS = 1 << 20
_LAYER = ["net", "layers", "layer"]
FLOATS = {"f32": 32, "f16": 16, "bf16": 16}
_KIND = re.compile(r"[a-z][a-z0-9]{0,15}")
"""A type of numbers by its name. It is shown to people, so it holds nothing else."""
INDEXES = ("i32", "i64", "boolean", "string")
WIDENED = ("Convert",)
_WHOLE_TEXTS = frozenset(("input_ids", "attention_mask"))
_DEEPEST = 8
_DIMENSIONS = 8
_GET_AGAIN = "Get the model again from where it was published."


@dataclass(frozen=True, slots=True)
class Matrix:
    """A constant with more than one row: the type of its numbers, how many of them share a scale
    (0: it has none), whether they are the whole of a row, and whether each has a zero point."""

    elements: int
    kind: str
    per_scale: int
    by_row: bool
    zero_points: bool

    @property
    def bits(self) -> int | None:
        """Of one number; None for a type that is no plain number."""
        width = self.kind[1:]
        return FLOATS.get(self.kind, whole(width))

    @property
    def mode(self) -> str:
        """NNCF's name of it with the group, e.g. `int4_sym_g128`."""
        if self.kind in FLOATS or self.bits is None:
            return self.kind
        group = "" if self.by_row else f"_g{self.per_scale}"
        return f"int{self.bits}_{'asym' if self.zero_points else 'sym'}{group}"


@dataclass(frozen=True)
class Graph:
    """What was read: matrices by size, the inputs' names, how many states it keeps, and what its
    converters wrote about themselves."""

    matrices: tuple[Matrix, ...]
    inputs: frozenset[str]
    states: int
    info: Mapping[str, str]

    @property
    def pools(self) -> bool:
        """Whether it takes whole texts and keeps nothing of them: an embedder or a reranker."""
        return not self.states and self.inputs == _WHOLE_TEXTS

    @property
    def by_elements(self) -> Mapping[int, int]:
        """How many matrices there are of each size."""
        return Counter(matrix.elements for matrix in self.matrices)


@dataclass(slots=True)
class Layer:
    """A node of the graph: what it reads by port, and who reads it."""

    kind: str
    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    readers: list[int] = field(default_factory=list)


class _Reader:
    """What the parser reports: layers of the outer graph, and what feeds what."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.layers: dict[int, Layer] = {}
        self.info: dict[str, str] = {}
        self._layer: Layer | None = None

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self.path.append(name)
        if self.path == _LAYER:
            if len(self.layers) >= _MOST_LAYERS:
                raise ValueError(f"it has more than {_MOST_LAYERS} layers")
            self._layer = Layer(attributes.get("type", ""), attributes.get("name", ""))
            self.layers[_number(attributes, "id")] = self._layer
        elif self.path == [*_LAYER, "data"] and self._layer is not None:
            self._layer.data = dict(attributes)
        elif self.path == ["net", "edges", "edge"]:
            self._edge(attributes)
        elif self.path[:2] == ["net", "rt_info"] and "value" in attributes and len(self.info) < 200:
            self.info["/".join(self.path[2:])] = attributes["value"][:200]

    def end(self, name: str) -> None:
        """An element ends."""
        self.path.pop()

    def _edge(self, attributes: Mapping[str, str]) -> None:
        source, reader = (_number(attributes, key) for key in ("from-layer", "to-layer"))
        self.layers[reader].sources[_number(attributes, "to-port")] = source
        self.layers[source].readers.append(reader)


def read(path: Path) -> Graph:
    """Read openvino_model.xml. Raises PackError as `followed`."""
    with _sentence(path):
        reader = _followed(path)
        layers = reader.layers
        return Graph(
            _matrices(layers),
            frozenset(layer.name for layer in layers.values() if layer.kind == "Parameter"),
            sum(layer.kind == "ReadValue" for layer in layers.values()),
            reader.info,
        )


def followed(path: Path) -> Mapping[int, Layer]:
    """The layers of openvino_model.xml by their numbers, read as a stream. Raises PackError (exit
    code 6) for what is no graph; that it is safe to open is looked at before."""
    with _sentence(path):
        return _followed(path).layers


def _followed(path: Path) -> _Reader:
    size = path.stat().st_size
    if size > _LARGEST:
        raise bad_input(
            f"{path} has {size} bytes, and a graph without its weights at most {_LARGEST}.",
            _GET_AGAIN,
        )
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    return reader


@contextmanager
def _sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except (expat.ExpatError, ValueError, KeyError) as error:
        raise bad_input(
            f"{path} is not a graph that can be followed: {shown(error)}.", _GET_AGAIN
        ) from None


def _number(attributes: Mapping[str, str], key: str) -> int:
    value = whole(attributes.get(key, ""))
    if value is None:
        raise ValueError(f"a layer or an edge has no {key}")
    return value


def _matrices(layers: Mapping[int, Layer]) -> tuple[Matrix, ...]:
    rows, helpers = [], set()
    for number, layer in layers.items():
        kind = layer.data.get("element_type")
        if layer.kind != "Const" or len(_wide(dimensions(layer))) < 2 or kind in INDEXES:
            continue
        if kind is None or not _KIND.fullmatch(kind):
            raise ValueError(f"a constant has the type {kind!r}")
        scales, zeros = (None, None) if kind in FLOATS else beside(layers, number)
        helpers |= {scales, zeros}
        rows.append((number, layer, scales, zeros))
    return tuple(
        _matrix(layers, layer, scales, zeros)
        for number, layer, scales, zeros in rows
        if number not in helpers
    )


def _matrix(
    layers: Mapping[int, Layer], layer: Layer, scales: int | None, zeros: int | None
) -> Matrix:
    size = dimensions(layer)
    elements, kind = prod(size), layer.data["element_type"]
    count = 0 if scales is None else prod(dimensions(layers[scales]))
    if kind in FLOATS or not count:
        return Matrix(elements, kind, 0, True, False)
    per_scale = elements // count
    return Matrix(
        *(elements, kind, per_scale, not (size[-1] == per_scale and len(size) > 2)),
        zero_points=zeros is not None and prod(dimensions(layers[zeros])) > 1,
    )


def beside(layers: Mapping[int, Layer], number: int) -> tuple[int | None, int | None]:
    """The constants of the scales and of the zero points of a matrix."""
    zeros = None
    for _ in range(_DEEPEST):
        reader = next(iter(layers[number].readers), None)
        if reader is None:
            break
        layer = layers[reader]
        if layer.kind in WIDENED:
            number = reader
            continue
        other = next((source for source in layer.sources.values() if source != number), None)
        constant = None if other is None else constant_of(layers, other)
        if layer.kind == "Subtract" and constant is not None:
            if layer.sources[min(layer.sources)] != number:
                # These are the zero points themselves.
                return None, None
            zeros, number = constant, reader
            continue
        return (constant if layer.kind == "Multiply" else None), zeros
    return None, zeros


def constant_of(layers: Mapping[int, Layer], number: int) -> int | None:
    """The constant that a value is, widened or not; None for one that is computed."""
    for _ in range(_DEEPEST):
        layer = layers[number]
        if layer.kind not in WIDENED or not layer.sources:
            break
        number = layer.sources[min(layer.sources)]
    return number if layers[number].kind == "Const" else None


def dimensions(layer: Layer) -> tuple[int, ...]:
    """The shape of a constant. Raises ValueError for what is none."""
    parts = layer.data.get("shape", "").split(",", _DIMENSIONS)
    if len(parts) > _DIMENSIONS:
        raise ValueError(f"a constant has more than {_DIMENSIONS} dimensions")
    return tuple(_size(part) for part in parts if part.strip())


def _size(part: str) -> int:
    size = whole(part.strip())
    if size is None:
        raise ValueError("a constant has a size that is not a number")
    return size


def _wide(sizes: tuple[int, ...]) -> list[int]:
    return [size for size in sizes if size > 1]
