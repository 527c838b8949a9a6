"""An adapter of ONNX Runtime, a FlatBuffer: every table, text and array within the file, each array
as long as its shape says.

Source: onnxruntime/lora/adapter_format/adapter_schema.fbs, and github.com/google/flatbuffers,
docs/source/internals.md.
"""

from __future__ import annotations

from math import prod
from mmap import mmap

from packager.inspection.unsafe import Unsafe

_MARK = b"TORT"
_PARAMETERS = 3
_NAME, _DIMENSIONS, _TYPE, _DATA = range(4)
_BYTES = {1: 4, 10: 2, 16: 2}
"""Bytes of a number of each type, by ONNX's own number of it: float, float16, bfloat16."""
_MOST = 1 << 16
"""Matrices. Every one of the largest Qwen makes 9,000."""
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 512


def refuse(data: mmap) -> None:
    """Raise Unsafe for an adapter that an engine should not be shown."""
    if len(data) < 8 or data[4:8] != _MARK:
        raise Unsafe("is not an adapter of ONNX Runtime")
    flat = _Flat(data)
    root = flat.number(0, 4)
    rows = flat.reference(root, _PARAMETERS)
    count = flat.count(rows, 4) if rows else 0
    if not rows or not 0 < count <= _MOST:
        raise Unsafe("holds no matrices, or too many")
    names: set[bytes] = set()
    for number in range(count):
        offset = rows + 4 + 4 * number
        names.add(_parameter(flat, offset + flat.number(offset, 4)))
    if len(names) != count:
        raise Unsafe("names a matrix twice")


def _parameter(flat: _Flat, table: int) -> bytes:
    """The name of a matrix whose numbers are all there."""
    name, sizes, numbers = (flat.reference(table, field) for field in (_NAME, _DIMENSIONS, _DATA))
    if not name or not sizes or not numbers:
        raise Unsafe("has a matrix without name, shape or numbers")
    dimensions = flat.count(sizes, 8)
    if dimensions > _MOST_DIMENSIONS:
        raise Unsafe(f"has a matrix of {dimensions} dimensions")
    shape = [flat.number(sizes + 4 + 8 * place, 8) for place in range(dimensions)]
    field = flat.field(table, _TYPE)
    width = _BYTES.get(flat.number(field, 4) if field else 0)
    if width is None:
        raise Unsafe("has a matrix of an unknown type")
    if prod(shape) * width != flat.count(numbers, 1):
        raise Unsafe("has a matrix of an impossible size")
    length = flat.count(name, 1)
    if not 0 < length <= _LONGEST_NAME:
        raise Unsafe("has a matrix whose name is too long")
    return bytes(flat.data[name + 4 : name + 4 + length])


class _Flat:
    """Numbers of a FlatBuffer by their place; every access is within the file."""

    def __init__(self, data: mmap) -> None:
        self.data = data

    def number(self, place: int, width: int, *, signed: bool = False) -> int:
        """A whole number, the lowest byte first."""
        if not 0 <= place <= len(self.data) - width:
            raise Unsafe("points outside of itself")
        return int.from_bytes(self.data[place : place + width], "little", signed=signed)

    def field(self, table: int, field: int) -> int:
        """Where a table keeps a field; 0 where it has none."""
        layout = table - self.number(table, 4, signed=True)
        size = self.number(layout, 2)
        offset = 4 + 2 * field
        if offset + 2 > size:
            return 0
        inner = self.number(layout + offset, 2)
        return table + inner if inner else 0

    def reference(self, table: int, field: int) -> int:
        """Where the text, list or table lies that a field points to; 0 where there is none."""
        offset = self.field(table, field)
        return offset + self.number(offset, 4) if offset else 0

    def count(self, place: int, width: int) -> int:
        """How many elements of `width` bytes a list has, all of them within the file."""
        count = self.number(place, 4)
        if place + 4 + count * width > len(self.data):
            raise Unsafe("has a list that ends outside of it")
        return count
