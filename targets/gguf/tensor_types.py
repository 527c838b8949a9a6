"""The type of every tensor in every preset, for every shape of the catalogue, with no engine at
hand.

What a model weighs in which single tensors got other types follows from it: the library decides the
types of the others as if there were none. `python -m targets.gguf.tensor_types_asked` asks it again
and writes tensor_types.json.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from packager.errors import PackError
from targets.gguf.overrides import check_importances, overridden
from targets.gguf.tensors import padded

TABLE = Path(__file__).with_name("tensor_types.json")

Patterns = tuple[tuple[str, str], ...]
"""Regular expression and ggml type, in the order in which they count."""


class Tensor(NamedTuple):
    """A tensor that can be quantized: its name, the elements of a row and the rows of all its
    matrices."""

    name: str
    columns: int
    rows: int


class Types(NamedTuple):
    """One letter per tensor: of those outside the layers, and of each kind of layer; `layers` has
    the letter of its kind for every layer."""

    outer: str
    layers: str
    kinds: list[str]


class Entry(NamedTuple):
    """One shape: its tensors, named without the layer inside `kinds`, and their types by preset."""

    last: str
    outer: list[Tensor]
    layers: str
    kinds: list[list[Tensor]]
    types: dict[str, Types]


class _Table(msgspec.Struct):
    source: str
    blocks: dict[str, tuple[int, int]]
    shapes: dict[str, Entry]


class _Chosen(NamedTuple):
    """The tensors that get another type: their places in the order of the file, and their parts and
    bytes as they become."""

    kinds: dict[str, str]
    places: list[tuple[int, str, int]]


def part_of(name: str, layers: int) -> str:
    """Which part of `Sizes` a tensor counts in; after so many layers come the heads that draft."""
    if name.startswith(f"blk.{layers}."):
        return "heads"
    ends = {"token_embd.weight": "embedding", "output.weight": "output"}
    return ends.get(name, "experts" if "_exps." in name else "rest")


def differences(
    shape_key: str, layers: int, column: str, patterns: Patterns, imatrix: bool
) -> dict[str, int] | None:
    """Bytes by part by which a preset grows where single tensors get other types; None for a shape
    or a preset that is not in the table. `layers`: those of the shape without heads.

    Raises PackError (usage) for a type or a pattern that cannot be.
    """
    chosen = _chosen(shape_key, layers, patterns)
    if chosen is None or column not in _table().shapes[shape_key].types:
        return None
    if isinstance(chosen, PackError):
        raise chosen.with_traceback(None)
    if not imatrix:
        check_importances(chosen.kinds)
    before = _bytes(shape_key, column)
    grown: dict[str, int] = {}
    for place, part, size in chosen.places:
        grown[part] = grown.get(part, 0) + size - before[place]
    return grown


@cache
def _chosen(shape_key: str, layers: int, patterns: Patterns) -> _Chosen | PackError | None:
    """What the patterns reach, or why they cannot; the same for every preset."""
    entry = _table().shapes.get(shape_key)
    if entry is None:
        return None
    tensors = _tensors(shape_key)
    try:
        kinds = overridden(tensors, dict(patterns), _table().blocks.__getitem__, entry.last)
    except PackError as problem:
        return problem
    return _Chosen(
        kinds,
        [
            (place, part_of(tensor.name, layers), _size(tensor, kinds[tensor.name]))
            for place, tensor in enumerate(tensors)
            if tensor.name in kinds
        ],
    )


@cache
def _tensors(shape_key: str) -> list[Tensor]:
    """In the order of the file: those outside the layers first."""
    entry = _table().shapes[shape_key]
    return entry.outer + [
        tensor._replace(name=f"blk.{number}.{tensor.name}")
        for number, letter in enumerate(entry.layers)
        for tensor in entry.kinds[string.ascii_letters.index(letter)]
    ]


@cache
def _bytes(shape_key: str, column: str) -> list[int]:
    """Bytes of every tensor in a preset, padding included, in the order of `_tensors`."""
    types = _table().shapes[shape_key].types[column]
    letters = types.outer + "".join(
        types.kinds[string.ascii_letters.index(letter)] for letter in types.layers
    )
    kinds = dict(zip(string.ascii_letters, _table().blocks, strict=False))
    return [
        _size(tensor, kinds[letter])
        for tensor, letter in zip(_tensors(shape_key), letters, strict=True)
    ]


def _size(tensor: Tensor, kind: str) -> int:
    elements, size = _table().blocks[kind]
    return padded(tensor.columns // elements * size * tensor.rows)


@cache
def _table() -> _Table:
    return msgspec.json.decode(TABLE.read_bytes(), type=_Table)
