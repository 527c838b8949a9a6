"""The file that turns one package into another: what is copied out of the old one, and what is new.

    magic, 4 bytes length and that many of JSON (the header), then for every file of the new
    package, its manifest first and the others by path, steps that make it one after the other,
    and last the sha256 of everything before.

A step begins with one byte. C copies a stretch of an old file. D holds bytes under zstd, which may
refer to a stretch of an old file. A full stop ends the file. Numbers are little-endian; the old
files are those of the old manifest by path, from 0 on. The old manifest itself is none of them:
`qwen-pack bench` adds figures to it on the device.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from packager.errors import PackError, bad_input, usage
from packager.package.manifest import FileEntry

MAGIC = b"qwen-pack patch 1\n"
SCHEMA = "qwen-pack/patch/1"
MOST_DATA = 1 << 20
"""Most new bytes of one step."""
MOST_REFERENCE = 2 << 20
"""Most old bytes that a step of new ones refers to: with the above, what applying a patch takes of
memory."""

_LENGTH = struct.Struct("<I")
_COPY = struct.Struct("<IQQ")
_DATA = struct.Struct("<IIIQI")
_DIGEST = hashlib.sha256().digest_size
_MOST_HEADER = 1 << 16
_MOST_BYTES = 1 << 50
_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stretch:
    """`length` bytes of the old file with that number, from `offset` on."""

    file: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Data:
    """`size` new bytes under zstd, with the old bytes that they refer to (none where its length is
    0)."""

    size: int
    reference: Stretch
    packed: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What a patch is for. `old_sha256` stands for the old package's files, see `files_sha256`,
    `new_sha256` is that of the new manifest.

    Bytes are those of all files of the new package, and of its manifest.
    """

    old_name: str
    old_sha256: str
    new_name: str
    new_sha256: str
    new_bytes: int
    manifest_bytes: int

    def encode(self) -> bytes:
        """Magic, length and JSON."""
        text = json.dumps(
            {
                "schema": SCHEMA,
                "old": {"name": self.old_name, "files_sha256": self.old_sha256},
                "new": {
                    "name": self.new_name,
                    "manifest_sha256": self.new_sha256,
                    "bytes": self.new_bytes,
                    "manifest_bytes": self.manifest_bytes,
                },
            }
        ).encode()
        return MAGIC + _LENGTH.pack(len(text)) + text


def files_sha256(files: Sequence[FileEntry]) -> str:
    """One digest of a package's files, whatever its manifest says beside them: of path, size and
    sha256 of each, by path."""
    rows = [
        [entry.path, entry.size, entry.sha256]
        for entry in sorted(files, key=lambda entry: entry.path)
    ]
    return hashlib.sha256(
        json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def encode(step: Stretch | Data | None) -> bytes:
    """One step; None ends a file."""
    if step is None:
        return b"."
    if isinstance(step, Stretch):
        return b"C" + _COPY.pack(step.file, step.offset, step.length)
    reference = step.reference
    return (
        b"D"
        + _DATA.pack(
            step.size, len(step.packed), reference.file, reference.offset, reference.length
        )
        + step.packed
    )


class Reader:
    """A patch whose bytes are those that were written; closed by whoever opened the file."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        """Compare the whole file with its digest and read the header. Raises PackError (exit code
        6) for anything but a patch."""
        self._file, self.where = file, where
        try:
            size = file.seek(0, 2)
        except OSError as error:  # files of the system that have no end
            raise usage(
                f"{where} cannot be read: {error.strerror}.",
                "Name a file that `qwen-pack delta` wrote.",
            ) from None
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            raise usage(f"{where} is not a patch.", "Name a file that `qwen-pack delta` wrote.")
        if size < len(MAGIC) + _LENGTH.size + _DIGEST:
            raise self.broken()
        self._end = size - _DIGEST
        file.seek(0)
        digest, left = hashlib.sha256(), self._end
        while left and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if left or file.read(_DIGEST + 1) != digest.digest():
            raise self.broken()
        file.seek(len(MAGIC))
        self.header = self._header(self._take(self._number(_LENGTH, _MOST_HEADER)))

    def steps(self) -> Iterator[Stretch | Data]:
        """The steps of the next file."""
        while (kind := self._take(1)) != b".":
            if kind == b"C":
                yield Stretch(*_COPY.unpack(self._take(_COPY.size)))
            elif kind == b"D":
                size, packed, *reference = _DATA.unpack(self._take(_DATA.size))
                if (
                    not 0 < size <= MOST_DATA
                    or packed > 2 * MOST_DATA
                    or reference[2] > MOST_REFERENCE
                ):
                    raise self.broken()
                yield Data(size, Stretch(*reference), self._take(packed))
            else:
                raise self.broken()

    def finish(self) -> None:
        """Raise where anything stands behind the last file."""
        if self._file.tell() != self._end:
            raise self.broken()

    def broken(self) -> PackError:
        """The sentence for a patch that is not as it was written."""
        return bad_input(
            f"{self.where} is damaged, or is not a patch of this version.",
            "Get it again from its source.",
        )

    def _take(self, count: int) -> bytes:
        if count > self._end - self._file.tell():
            raise self.broken()
        return self._file.read(count)

    def _number(self, form: struct.Struct, most: int) -> int:
        number: int = form.unpack(self._take(form.size))[0]
        if number > most:
            raise self.broken()
        return number

    def _header(self, text: bytes) -> Header:
        try:
            data: Any = json.loads(text)
            old, new = data["old"], data["new"]
            names = (old["name"], new["name"])
            digests = (old["files_sha256"], new["manifest_sha256"])
            sizes = (new["bytes"], new["manifest_bytes"])
            whole = all(
                isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MOST_BYTES
                for size in sizes
            )
            if (
                data["schema"] != SCHEMA
                or not whole
                or not all(isinstance(name, str) and name.isprintable() for name in names)
            ):
                raise self.broken()
            if not all(_SHA256.fullmatch(digest) for digest in digests):
                raise self.broken()
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self.broken() from None
        return Header(names[0], digests[0], names[1], digests[1], *sizes)


def opened(path: Path) -> IO[bytes]:
    """The patch as a file. Raises PackError (usage) where there is none."""
    if not path.is_file():
        raise usage(f"There is no file {path}.", "Name a file that `qwen-pack delta` wrote.")
    return path.open("rb")
