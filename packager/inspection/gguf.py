"""The header of a GGUF: every count, type and offset within what the file has, before llama.cpp
maps it.

Source: github.com/ggml-org/ggml, docs/gguf.md; types and their block sizes stand in keys.toml.
"""

from __future__ import annotations

import struct
from mmap import mmap

from packager.inspection.rules import rules
from packager.inspection.unsafe import Unsafe, shown

STRING, ARRAY = 8, 9
_SCALARS = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # bytes by type of value
_UINT32 = 4
_VERSIONS = (2, 3)
_LONGEST_KEY, _LONGEST_NAME = 65_535, 63  # GGML_MAX_NAME less its end
_MOST_AXES = 4


class _Cursor:
    """A place in the file that never leaves it."""

    def __init__(self, data: mmap | bytes, size: int) -> None:
        self.data, self.size, self.place = data, size, 0

    def skip(self, length: int) -> None:
        if length > self.size - self.place:
            raise Unsafe("ends within its header")
        self.place += length

    def number(self, shape: str) -> int:
        start = self.place
        self.skip(struct.calcsize(shape))
        return int(struct.unpack_from(shape, self.data, start)[0])

    def text(self, longest: int, what: str) -> str:
        length = self.number("<Q")
        if length > longest:
            raise Unsafe(f"has {what} of {length} bytes")
        start = self.place
        self.skip(length)
        return bytes(self.data[start : start + length]).decode("utf-8", "surrogateescape")


def refuse(data: mmap | bytes, size: int) -> None:
    """Raise Unsafe for a header that llama.cpp should not be shown."""
    cursor = _Cursor(data, size)
    if bytes(data[:4]) != b"GGUF":
        raise Unsafe("is not a GGUF file")
    cursor.skip(4)
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise Unsafe(f"is a GGUF of version {version}")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    # Every pair and every tensor takes at least so many bytes: a count that cannot be is told
    # before it is walked.
    if tensors * 24 + pairs * 13 > size:
        raise Unsafe(f"claims {tensors} tensors and {pairs} keys in {size} bytes")
    alignment = _pairs(cursor, pairs)
    spans = [_tensor(cursor) for _ in range(tensors)]
    if len({name for name, _, _ in spans}) != tensors:
        raise Unsafe("names a tensor twice")
    start = -(-cursor.place // alignment) * alignment
    for name, offset, length in spans:
        if offset % alignment or offset + length > size - start:
            raise Unsafe(
                f"has the tensor {shown(name)} at {offset} with {length} bytes, outside of its data"
            )


def _pairs(cursor: _Cursor, count: int) -> int:
    """Walk the keys; returns the alignment of the data in bytes."""
    alignment = 32
    seen: set[str] = set()
    for _ in range(count):
        key = cursor.text(_LONGEST_KEY, "a key")
        if key in seen:
            raise Unsafe(f"has the key {shown(key)} twice")
        seen.add(key)
        kind = cursor.number("<I")
        start = cursor.place
        _value(cursor, kind, key)
        if key == "general.alignment":
            alignment = (
                int.from_bytes(cursor.data[start : start + 4], "little") if kind == _UINT32 else 0
            )
            if not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
                raise Unsafe("has an alignment that is not a power of two")
    return alignment


def _value(cursor: _Cursor, kind: int, key: str) -> None:
    if kind in _SCALARS:
        cursor.skip(_SCALARS[kind])
    elif kind == STRING:
        cursor.skip(cursor.number("<Q"))
    elif kind == ARRAY:
        inner, count = cursor.number("<I"), cursor.number("<Q")
        if inner in _SCALARS:
            cursor.skip(_SCALARS[inner] * count)
        elif inner == STRING:
            _strings(cursor, count)
        else:
            raise Unsafe(f"has a list of an unknown kind ({inner}) as {shown(key)}")
    else:
        raise Unsafe(f"has a value of an unknown kind ({kind}) as {shown(key)}")


def _strings(cursor: _Cursor, count: int) -> None:
    """Past a list of texts: a vocabulary has 150,000, so no call per text."""
    data, offset, size = cursor.data, cursor.place, cursor.size
    if count * 8 > size - offset:
        raise Unsafe("ends within its header")
    read = struct.Struct("<Q").unpack_from
    for _ in range(count):
        if offset + 8 > size:
            raise Unsafe("ends within its header")
        offset += 8 + read(data, offset)[0]
    if offset > size:
        raise Unsafe("ends within its header")
    cursor.place = offset


def _tensor(cursor: _Cursor) -> tuple[str, int, int]:
    """Name, offset and length in bytes of one tensor."""
    name = cursor.text(_LONGEST_NAME, "the name of a tensor")
    axes = cursor.number("<I")
    if not 1 <= axes <= _MOST_AXES:
        raise Unsafe(f"has the tensor {shown(name)} with {axes} axes")
    shape = [cursor.number("<Q") for _ in range(axes)]
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    block = rules().ggml.get(kind)
    if block is None:
        raise Unsafe(f"has the tensor {shown(name)} of an unknown type ({kind})")
    elements = 1
    for length in shape:
        elements *= length
    if not 0 < elements < 1 << 62 or shape[0] % block[0]:
        raise Unsafe(
            f"has the tensor {shown(name)} of an impossible size ({', '.join(map(str, shape))})"
        )
    return name, offset, elements // block[0] * block[1]
