"""The header of a safetensors file: every type, shape and offset within what the file has, before
an engine maps it.

Source: github.com/huggingface/safetensors, README.md (Format).
"""

from __future__ import annotations

import json
from math import prod
from typing import IO, Any, TypeGuard

from packager.inspection.unsafe import Unsafe, shown

LONGEST = 4 << 20
"""Bytes of a header: an adapter has some hundred tensors of a hundred bytes each."""
_MOST = 1 << 16
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_METADATA = "__metadata__"


def refuse(file: IO[bytes], size: int) -> None:
    """Raise Unsafe for a header that an engine should not be shown."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(LONGEST, size - 8):
        raise Unsafe(f"claims a header of {length} bytes in {size}")
    text = file.read(length)
    if not text.startswith(b"{") or text.count(b"{") > _MOST:
        raise Unsafe("has no header of safetensors")
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Unsafe("has a header that is not JSON") from None
    end = 0
    rows = [(name, row) for name, row in header.items() if name != _METADATA]
    for name, (first, last) in sorted(((name, _span(name, row)) for name, row in rows), key=_start):
        if first != end or last > size - 8 - length:
            raise Unsafe(f"has the tensor {shown(name)} outside of its place")
        end = last
    if end != size - 8 - length:
        raise Unsafe("has bytes that belong to no tensor")


def _start(row: tuple[str, tuple[int, int]]) -> tuple[int, int]:
    return row[1]


# Any: JSON of which nothing has been checked.
def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise Unsafe("names something twice in its header")
    return table


def _span(name: str, row: Any) -> tuple[int, int]:
    """First and last byte of a tensor, from the end of the header on."""
    shape = row.get("shape") if isinstance(row, dict) else None
    offsets = row.get("data_offsets") if isinstance(row, dict) else None
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise Unsafe(f"does not say where the tensor {shown(name)} lies")
    item = _BYTES.get(str(row.get("dtype")))
    if item is None:
        raise Unsafe(f"has the tensor {shown(name)} of an unknown type")
    if offsets[1] - offsets[0] != item * prod(shape):
        raise Unsafe(f"has the tensor {shown(name)} of an impossible size")
    return offsets[0], offsets[1]


def _counts(value: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(number) is int and 0 <= number < 1 << 48 for number in value)
    )
