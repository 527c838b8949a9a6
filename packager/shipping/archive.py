"""One file out of a package: tar.zst or zip, the same bytes wherever and whenever it is written.

Names are sorted behind the manifest, which comes first so that a reader can check every file as it
arrives; times, owners and modes are fixed; zstd runs on one thread, because its output depends on
their number.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any, Protocol

from packager.errors import usage
from packager.shipping.shipment import Shipment, new_file

EPOCH = 315_532_800
"""1 January 1980, the first moment that a zip can name."""

_LEVEL = 3  # weights hardly shrink at any level; the papers are small
_BLOCK = 512


def write_tar_zst(shipment: Shipment, out: Path) -> Generator[int, None, None]:
    """Write `out`; yields the sizes of the pieces as they are written."""
    library = zstd()
    with new_file(out) as temporary, temporary.open("wb") as raw:
        compressor = library.ZstdCompressor(level=_LEVEL, write_checksum=True, threads=0)
        with compressor.stream_writer(raw, closefd=False) as sink:
            yield from write_tar(shipment, sink, shipment.name)


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take all of them."""


def write_tar(shipment: Shipment, sink: Sink, folder: str) -> Generator[int, None, None]:
    """The package as a plain tar in which it stands below `folder`; yields the sizes of the pieces
    as they are written."""
    for entry in shipment.files:
        row = tarfile.TarInfo(f"{folder}/{entry.path}")
        row.size, row.mtime, row.mode = entry.size, EPOCH, 0o644
        sink.write(row.tobuf(tarfile.GNU_FORMAT))
        for chunk in shipment.chunks(entry):
            sink.write(chunk)
            yield len(chunk)
        sink.write(bytes(-entry.size % _BLOCK))
    sink.write(bytes(2 * _BLOCK))


def write_zip(shipment: Shipment, out: Path) -> Generator[int, None, None]:
    """Write `out`, stored and not deflated: weights do not shrink, and every deflate library gives
    other bytes."""
    with (
        new_file(out) as temporary,
        temporary.open("wb") as raw,
        zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive,
    ):
        for entry in shipment.files:
            row = zipfile.ZipInfo(f"{shipment.name}/{entry.path}", (1980, 1, 1, 0, 0, 0))
            row.create_system = 3  # Unix, wherever it is written
            row.external_attr = 0o100644 << 16
            row.file_size = entry.size
            with archive.open(row, "w", force_zip64=entry.size >= 1 << 31) as sink:
                for chunk in shipment.chunks(entry):
                    sink.write(chunk)
                    yield len(chunk)


def reading(archive: IO[bytes]) -> IO[bytes]:
    """The tar inside a tar.zst as a stream of bytes, which closes the archive when it is closed."""
    decompressor = zstd().ZstdDecompressor(max_window_size=1 << 27)
    stream = decompressor.stream_reader(archive, closefd=True, read_across_frames=True)
    return io.BufferedReader(stream, 1 << 17)


def zstd() -> Any:
    """The zstandard library, which the base install does not hold. Raises PackError (usage) with
    the line that installs it."""
    try:
        import zstandard
    except ImportError:
        raise usage(
            "tar.zst needs the zstandard library, which is not installed.",
            "pip install 'qwen-pack[ship]', or take zip.",
        ) from None
    return zstandard
