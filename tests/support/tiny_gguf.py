"""A GGUF written by hand: the smallest that is one, and every way in which it can be none."""

from __future__ import annotations

import struct


def text(value: str) -> bytes:
    """A string as GGUF has it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def tiny_gguf(
    data: bytes,
    *,
    kind: int = 24,
    offset: int = 0,
    elements: int | None = None,
    keys: bytes = b"",
    pairs: int = 0,
) -> bytes:
    """One tensor of bytes, type I8 unless said otherwise; `keys` are `pairs` keys, already
    encoded."""
    tensor = text("t") + struct.pack(
        "<IQIQ", 1, len(data) if elements is None else elements, kind, offset
    )
    header = struct.pack("<4sIQQ", b"GGUF", 3, 1, pairs) + keys + tensor
    return header.ljust(-(-len(header) // 32) * 32, b"\0") + data
