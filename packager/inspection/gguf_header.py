"""What a GGUF says of itself: its keys, and where its tensors lie.

Everything is walked through by `gguf.refuse` first, so that no count, length or offset leads out of
the file; only then values are made of it, no more of them than a genuine file has.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path

from packager.errors import bad_input
from packager.files import open_to_read
from packager.inspection.gguf import ARRAY, STRING, refuse
from packager.inspection.rules import rules
from packager.inspection.unsafe import Unsafe, shown
from packager.limits import GGUF_HEADER_BYTES, GGUF_ITEMS, GGUF_KEYS, TENSORS

Value = str | int | float | bool | tuple[str, ...] | tuple[int | float | bool, ...]

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS |= {12: "d"}
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` outermost axis first, `kind` ggml's number of its type, `offset` in bytes
    from the start of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """The header of one file: keys in their order, and tensors in that of the header."""

    path: Path
    size: int
    keys: Mapping[str, Value] = field(repr=False)
    tensors: tuple[GgufTensor, ...] = field(repr=False)

    def text(self, key: str) -> str | None:
        """A text; None where the key is absent or holds something else."""
        value = self.keys.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | float | None:
        """A number; None where the key is absent or holds something else."""
        value = self.keys.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the key is absent or holds something else."""
        value = self.keys.get(key)
        if not isinstance(value, tuple):
            return ()
        texts = tuple(item for item in value if isinstance(item, str))
        return texts if len(texts) == len(value) else ()

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where the key is absent or holds something else."""
        value = self.keys.get(key)
        if not isinstance(value, tuple):
            return ()
        numbers = tuple(item for item in value if type(item) is int)
        return numbers if len(numbers) == len(value) else ()


def read(path: Path) -> GgufFile:
    """The header of a file. Raises PackError (exit code 6) naming what is wrong with it, in a
    sentence; OSError where it cannot be opened."""
    handle = open_to_read(path)
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size == 0:
                raise Unsafe("is empty")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                refuse(data, size)
                return _Reader(path, size, data).file()
        except Unsafe as reason:
            raise bad_input(
                f"{path} {reason}.", "Get the file again from where it was published."
            ) from None


class _Reader:
    """A second walk over a header whose every length is known to lie within the file."""

    def __init__(self, path: Path, size: int, data: mmap) -> None:
        self._path, self._size, self._data = path, size, data
        self._place = 8

    def file(self) -> GgufFile:
        """Keys, then tensors."""
        tensors, pairs = self._length(), self._length()
        if tensors > TENSORS or pairs > GGUF_KEYS:
            raise Unsafe(f"claims {tensors} tensors and {pairs} keys")
        keys = dict(self._pair() for _ in range(pairs))
        alignment = keys.get(_ALIGNMENT, 32)
        assert isinstance(alignment, int)
        rows = [self._tensor() for _ in range(tensors)]
        start = -(-self._place // alignment) * alignment
        placed = tuple(
            GgufTensor(name, shape, kind, start + offset, _bytes_of(shape, kind))
            for name, shape, kind, offset in rows
        )
        return GgufFile(self._path, self._size, keys, placed)

    def _length(self) -> int:
        (value,) = _LENGTH.unpack_from(self._data, self._place)
        self._place += 8
        return int(value)

    def _word(self) -> int:
        (value,) = struct.unpack_from("<I", self._data, self._place)
        self._place += 4
        return int(value)

    def _text(self) -> str:
        length = self._length()
        start, self._place = self._place, self._place + length
        if self._place > GGUF_HEADER_BYTES:
            raise Unsafe(f"has a header of more than {GGUF_HEADER_BYTES} bytes")
        try:
            return self._data[start : self._place].decode("utf-8")
        except UnicodeDecodeError:
            raise Unsafe("holds a text that is not UTF-8") from None

    def _pair(self) -> tuple[str, Value]:
        key, kind = self._text(), self._word()
        if kind == STRING:
            return key, self._text()
        if kind != ARRAY:
            return key, self._numbers(kind, 1)[0]
        kind, count = self._word(), self._length()
        if count > GGUF_ITEMS:
            raise Unsafe(f"has a list of {count} items as {shown(key)}")
        if kind == STRING:
            return key, tuple(self._text() for _ in range(count))
        return key, self._numbers(kind, count)

    def _numbers(self, kind: int, count: int) -> tuple[int | float | bool, ...]:
        form = f"<{count}{_NUMBERS[kind]}"
        values = struct.unpack_from(form, self._data, self._place)
        self._place += struct.calcsize(form)
        return values

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self._text(), self._word()
        shape = tuple(self._length() for _ in range(axes))
        kind, offset = self._word(), self._length()
        return name, shape[::-1], kind, offset


def _bytes_of(shape: tuple[int, ...], kind: int) -> int:
    elements, size = rules().ggml[kind]
    return prod(shape) // elements * size
