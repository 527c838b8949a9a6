"""What the converter decides about one tensor of the GGUF: its name, its shape, and the rows it is
made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

ALIGNMENT = 32
"""Bytes to which tensor data is aligned (GGUF's default)."""


@dataclass(frozen=True, slots=True)
class Part:
    """`rows` consecutive rows of a tensor of the checkpoint, from row `first` on.

    With a `width` the checkpoint stores the matrix transposed: from its row `first` on as many rows
    as the tensor has columns, each `width` numbers wide; the part's rows are the columns from
    `column` on, and are a whole matrix.
    """

    source: str
    first: int
    rows: int
    width: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class OutTensor:
    """One tensor of the GGUF, described without reading any weights.

    `shape` is outermost dimension first; the parts follow one another and fill it row by row, a row
    being the last dimension. `f32` marks what llama.cpp keeps in float32. `change` maps a block of
    rows (float32 array, rows x columns) to the values to be stored; it may not mix rows.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    f32: bool = False
    change: Callable[[Any], Any] | None = None

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Rows of all matrices together."""
        return prod(self.shape[:-1])

    @property
    def matrix_rows(self) -> int:
        """Rows of one matrix: an expert of a stack, or all of them."""
        return self.shape[-2] if len(self.shape) > 1 else 1

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class TypedTensor:
    """An OutTensor with its ggml type, the bytes of one row and its offset in the data section."""

    tensor: OutTensor
    type: str
    row_bytes: int
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the data, without padding."""
        return self.row_bytes * self.tensor.rows


def padded(size: int, alignment: int = ALIGNMENT) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // alignment) * alignment


def place(
    tensors: Iterable[OutTensor], types: dict[str, str], row_bytes: Callable[[str, int], int]
) -> Iterator[TypedTensor]:
    """Give every tensor its type, row size and offset, one after the other."""
    offset = 0
    for tensor in tensors:
        kind = types[tensor.name]
        typed = TypedTensor(tensor, kind, row_bytes(kind, tensor.columns), offset)
        yield typed
        offset += padded(typed.nbytes)


def library_order(tensor: OutTensor) -> tuple[int, str]:
    """Sort key of the order in which llama.cpp's own quantizer writes: by layer, then by name; what
    belongs to no layer first."""
    head, _, rest = tensor.name.partition(".")
    return (int(rest.partition(".")[0]) if head == "blk" else -1), tensor.name
