"""One streaming pass: read rows, make them float32, quantize, write them where they belong, forget
them.

Every thread takes the next block of rows that nobody has taken, and puts the result straight to its
place in the file, so memory is a few megabytes per thread whatever the model, and the bytes do not
depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from packager.checkpoint import TensorInfo, codes
from packager.checkpoint.numbers import elements
from packager.errors import PackError, bad_input
from packager.runtime import Report
from targets.gguf import repacked
from targets.gguf.kernels import ITEM, Bytes, Floats, Kernels
from targets.gguf.repacked import Taken
from targets.gguf.shards import Shard
from targets.gguf.tensors import TypedTensor

BLOCK_ELEMENTS = 1 << 18
"""Elements converted at once: 1 MiB as float32, which stays in a core's second-level cache."""

Imatrix = Mapping[str, Floats]
"""Tensor name -> one weight per column, for stacks of experts (experts, columns)."""


@dataclass(frozen=True, slots=True)
class _Block:
    """`rows` rows of one tensor, found at `read_at` of the source and put to `write_at` of the file
    with that descriptor.

    Of a computed tensor `read_at` counts as if it lay in its own type from byte 0.
    """

    typed: TypedTensor
    source: TensorInfo
    read_at: int
    rows: int
    file: int
    write_at: int
    matrix: int
    width: int = 0
    column: int = 0
    """See Part."""

    @property
    def count(self) -> int:
        """Numbers that are read: of a transposed matrix all that stand beside it, too."""
        return (self.width or self.rows) * self.typed.tensor.columns


def write_gguf(
    shards: Sequence[Shard],
    sources: Mapping[str, TensorInfo],
    kernels: Kernels,
    threads: int,
    report: Report,
    imatrix: Imatrix | None = None,
    taken: Taken | None = None,
) -> None:
    """Write every file under a temporary name, flush it to the disk, then give it its name; on
    failure nothing stays.

    Rows of matrices that are `taken` over keep their groups of 4 bits.
    Raises PackError (bad input) naming a tensor that holds NaN or infinity.
    """
    temporary = [shard.path.with_name(f".{shard.path.name}.part") for shard in shards]
    finished: list[Path] = []
    try:
        with contextlib.ExitStack() as files, _Readers() as readers:
            opened = [files.enter_context(path.open("wb", buffering=0)) for path in temporary]
            for file, shard in zip(opened, shards, strict=True):
                os.pwrite(file.fileno(), shard.head, 0)
                file.truncate(shard.size)
            total = sum(entry.nbytes for shard in shards for entry in shard.typed)
            blocks = chain.from_iterable(
                _blocks(shard, file.fileno(), sources, imatrix or {})
                for file, shard in zip(opened, shards, strict=True)
            )
            work = _Pass(blocks, readers, kernels, report, total, imatrix or {}, taken)
            work.run(threads)
            for file in opened:
                os.fsync(file.fileno())
        for path, shard in zip(temporary, shards, strict=True):
            finished.append(path.replace(shard.path))
        _flush_folder(shards[0].path.parent)
    except BaseException:
        for path in (*temporary, *finished):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        raise


def _blocks(
    shard: Shard, file: int, sources: Mapping[str, TensorInfo], weighted: Imatrix
) -> Iterator[_Block]:
    """The work of one file in its order. A block never spans two parts, nor two matrices of a
    `weighted` tensor."""
    for entry in shard.typed:
        tensor, start = entry.tensor, len(shard.head) + entry.offset
        row = 0
        # The 230,400 matrices of a convolution are not worth a block each.
        matrix_rows = tensor.matrix_rows if tensor.name in weighted else tensor.rows
        limit = max(1, BLOCK_ELEMENTS // tensor.columns)
        for part in tensor.parts:
            source = sources[part.source]
            row_size = (part.width or tensor.columns) * ITEM[source.dtype]
            if part.width:
                read_at = source.offset + part.first * row_size
                write_at = start + row * entry.row_bytes
                matrix = row // tensor.matrix_rows
                yield _Block(
                    entry,
                    source,
                    read_at,
                    part.rows,
                    file,
                    write_at,
                    matrix,
                    part.width,
                    part.column,
                )
                row += part.rows
                continue
            done = 0
            while done < part.rows:
                matrix, inside = divmod(row, matrix_rows)
                rows = min(limit, part.rows - done, matrix_rows - inside)
                read_at = source.offset + (part.first + done) * row_size
                yield _Block(
                    entry, source, read_at, rows, file, start + row * entry.row_bytes, matrix
                )
                done += rows
                row += rows


class _Readers:
    """One descriptor per source file. Reading into a buffer instead of mapping keeps what was read
    out of our resident size."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, path: Path, at: int, into: Bytes) -> None:
        """Fill `into` from the file. Raises PackError (bad input) when it ends too early."""
        with self._lock:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY)
            descriptor = self._open[path]
        view, done = into.data, 0
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], at + done)
            if count <= 0:
                raise bad_input(f"{path} ends before the tensors it announces.", "Fetch it again.")
            done += count


class _Pass:
    """The threads and what they share."""

    def __init__(
        self,
        blocks: Iterator[_Block],
        readers: _Readers,
        kernels: Kernels,
        report: Report,
        total: int,
        imatrix: Imatrix,
        taken: Taken | None,
    ) -> None:
        self._taken = taken
        self._blocks, self._readers, self._kernels = blocks, readers, kernels
        self._report, self._total, self._imatrix = report, total, imatrix
        self._lock = threading.Lock()
        self._done = 0
        self._failure: BaseException | None = None

    def run(self, threads: int) -> None:
        """All blocks, on `threads` threads. Raises the first failure."""
        workers = [
            threading.Thread(target=self._work, daemon=True) for _ in range(max(1, threads) - 1)
        ]
        for worker in workers:
            worker.start()
        self._work()
        for worker in workers:
            worker.join()
        if self._failure is not None:
            raise self._failure

    def _next(self) -> _Block | None:
        with self._lock:
            return None if self._failure is not None else next(self._blocks, None)

    def _work(self) -> None:
        try:
            buffers = _Buffers()
            while (block := self._next()) is not None:
                written = self._convert(block, buffers)
                with self._lock:
                    self._done += written
                    self._report.progress(self._done, self._total)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _convert(self, block: _Block, buffers: _Buffers) -> int:
        if self._taken is not None and block.typed.tensor.name in self._taken.types:
            return self._take_over(self._taken.parts[block.source.name], block, buffers)
        typed, tensor, dtype = block.typed, block.typed.tensor, block.source.dtype
        count = block.count
        values: Any = buffers.take("f32", count * 4).view(np.float32).reshape(-1, tensor.columns)
        raw = None
        if block.source.made is not None:
            values.reshape(-1)[:] = elements(block.source, block.read_at // ITEM[dtype], count)
        else:
            raw = buffers.take("raw", count * ITEM[dtype])
            self._readers.read(block.source.file, block.read_at, raw)
            self._kernels.to_f32(dtype, raw, values)
        if block.width:
            values = _turned(values, block, buffers)
        if tensor.change is not None:
            values = np.ascontiguousarray(tensor.change(values), dtype=np.float32)
        if not self._kernels.finite(values):
            raise _not_finite(block)
        if raw is not None and typed.type == dtype and tensor.change is None and not block.width:
            out = raw
        else:
            out = buffers.take("out", block.rows * typed.row_bytes)
            self._kernels.encode(typed.type, values, out, self._weights(block))
            if typed.type == "F16" and not np.isfinite(out.view(np.float16)).all():
                raise bad_input(
                    f"The tensor {block.source.name!r} holds values above 65504, which half "
                    "precision cannot.",
                    "Take BF16 or Q8_0 instead of F16.",
                )
        _write(block.file, out, block.write_at)
        return out.nbytes

    def _take_over(self, part: codes.Part, block: _Block, buffers: _Buffers) -> int:
        """The numbers of a block as they are stored."""
        typed, source = block.typed, block.source
        first = block.read_at // (ITEM[source.dtype] * typed.tensor.columns)
        out = buffers.take("out", block.rows * typed.row_bytes)
        repacked.encode(typed.type, part.codes(first, block.rows), out)
        _write(block.file, out, block.write_at)
        return out.nbytes

    def _weights(self, block: _Block) -> Floats | None:
        weights = self._imatrix.get(block.typed.tensor.name)
        if weights is None:
            return None
        return np.ascontiguousarray(
            weights.reshape(-1, block.typed.tensor.columns)[block.matrix], dtype=np.float32
        )


class _Buffers:
    """Memory of one thread, used again for every block."""

    def __init__(self) -> None:
        self._kept: dict[str, Bytes] = {}

    def take(self, use: str, size: int) -> Bytes:
        """`size` bytes for that use; what was there before is overwritten."""
        kept = self._kept.get(use)
        if kept is None or kept.nbytes < size:
            kept = self._kept[use] = np.empty(size, np.uint8)
        return kept[:size]


def _turned(values: Any, block: _Block, buffers: _Buffers) -> Any:
    """The part's rows, which lie in the stored matrix as columns."""
    columns = block.typed.tensor.columns
    stored = values.reshape(columns, block.width)[:, block.column : block.column + block.rows]
    turned = buffers.take("turned", stored.size * 4).view(np.float32).reshape(block.rows, columns)
    turned[:] = stored.T
    return turned


def _not_finite(block: _Block) -> PackError:
    return bad_input(
        f"The tensor {block.source.name!r} in {block.source.file.name} holds NaN or infinity.",
        "The checkpoint is damaged or was trained into overflow: fetch it again or take another "
        "revision.",
    )


def _write(descriptor: int, data: Bytes, at: int) -> None:
    view = data.data
    while len(view):
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def _flush_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
