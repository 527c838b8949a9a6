"""The header of a GGUF walked through before the gguf package makes objects of it.

Source: docs/gguf.md of ggml. The package believes every count and goes on past the end of the file,
so an array that claims 2**40 items keeps it busy for days.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import gguf

from packager.limits import MATRIX_ENTRIES, MATRIX_ITEMS, MATRIX_KEYS

_ARRAY, _STRING = int(gguf.GGUFValueType.ARRAY), int(gguf.GGUFValueType.STRING)
_BYTES = {
    int(kind): size
    for size, kinds in {
        1: ("UINT8", "INT8", "BOOL"),
        2: ("UINT16", "INT16"),
        4: ("UINT32", "INT32", "FLOAT32"),
        8: ("UINT64", "INT64", "FLOAT64"),
    }.items()
    for kind in (gguf.GGUFValueType[name] for name in kinds)
}
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 1 << 16
_ALIGNMENTS = {1 << power for power in range(3, 17)}


def check_matrix_file(path: Path) -> None:
    """Raise ValueError for a GGUF that is not laid out as its header says, or holds more than an
    importance matrix does. Reads the header only, each byte of it once."""
    with path.open("rb") as file:
        walk = _Walk(file, path.stat().st_size)
        if walk.take(4) != b"GGUF" or walk.number("<I") not in (2, 3):
            raise ValueError("it is of an unknown version")
        tensors = walk.count("tensors", 2 * MATRIX_ENTRIES)
        keys = walk.count("keys", MATRIX_KEYS)
        for _ in range(keys):
            walk.pair()
        rows = [walk.tensor() for _ in range(tensors)]
        start = file.tell() + -file.tell() % walk.alignment
        for row in rows:
            if start + row.offset + row.nbytes > walk.size:
                raise ValueError("a tensor is beyond the end of the file")


@dataclass(frozen=True, slots=True)
class _Row:
    """Where a tensor lies behind the header, in bytes."""

    offset: int
    nbytes: int


class _Walk:
    """A header from its start on; what is left of the file bounds every count."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.size = file, size
        self.alignment = gguf.GGUF_DEFAULT_ALIGNMENT

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if count > self.size - self._file.tell():
            raise ValueError("it ends inside its header")
        return self._file.read(count)

    def number(self, form: str) -> int:
        """One number, little-endian."""
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def count(self, what: str, most: int) -> int:
        """A number of things, each of which takes a byte at least."""
        value = self.number("<Q")
        if value > most:
            raise ValueError(f"it claims {value} {what}")
        return value

    def pair(self) -> None:
        """Read past a key and its value."""
        key = self._text()
        kind = self.number("<I")
        if key == gguf.Keys.General.ALIGNMENT.encode():
            if kind != int(gguf.GGUFValueType.UINT32):
                raise ValueError("its alignment is not a number")
            self.alignment = self.number("<I")
            if self.alignment not in _ALIGNMENTS:
                raise ValueError(f"its alignment is {self.alignment}")
        elif kind == _ARRAY:
            kind = self.number("<I")
            for _ in range(self._items(kind)):
                self._text()
        elif kind == _STRING:
            self._text()
        else:
            self._skip(self._width(kind))

    def tensor(self) -> _Row:
        """Read past the row of one tensor."""
        self._text()
        dimensions = self.number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self.number("<Q")
        kind = gguf.GGMLQuantizationType(self.number("<I"))
        block, nbytes = gguf.GGML_QUANT_SIZES[kind]
        return _Row(self.number("<Q"), -(-elements // block) * nbytes)

    def _items(self, kind: int) -> int:
        """The texts of an array that are still to be read; items of a fixed width are skipped."""
        items = self.count("items", MATRIX_ITEMS)
        if kind == _STRING:
            return items
        self._skip(items * self._width(kind))
        return 0

    def _text(self) -> bytes:
        length = self.number("<Q")
        if length > _LONGEST_NAME:
            raise ValueError(f"it has a text of {length} bytes")
        return self.take(length)

    def _width(self, kind: int) -> int:
        width = _BYTES.get(kind)
        if width is None:
            raise ValueError(f"it has a value of the unknown type {kind}")
        return width

    def _skip(self, count: int) -> None:
        if count > self.size - self._file.tell():
            raise ValueError("it ends inside its header")
        self._file.seek(count, 1)
