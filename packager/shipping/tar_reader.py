"""A tar read as a stream, member by member, in bounded memory.

Not tarfile, whose reader takes extension headers of any length into memory and knows dozens of
kinds of members: this one knows files and folders, and refuses the rest by name. Source: POSIX pax,
"ustar Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from packager.errors import bad_input
from packager.limits import ARCHIVE_MEMBERS, EXTENDED_HEADERS

_BLOCK = 512
_LONGEST_HEADER = 1 << 16
_SHORTEST_RECORD = 5
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file (or folder) in an archive: its name as it stands there, its size in bytes."""

    name: str
    size: int
    folder: bool = False


def members(stream: IO[bytes], where: str) -> Iterator[tuple[Member, IO[bytes]]]:
    """Each member with a reader that ends where it ends; what is left unread is skipped.

    Raises PackError (exit code 6) for a link, a device, a broken header and an archive that ends
    early.
    """
    name = size = None
    extended = count = 0
    while True:
        block = _exactly(stream, _BLOCK, where)
        if block == bytes(_BLOCK):
            return
        if count >= ARCHIVE_MEMBERS or extended > EXTENDED_HEADERS:
            raise bad_input(
                f"{where} has more members, or more headers before one of them, than the archive "
                "of a package.",
                "Do not use it.",
            )
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise bad_input(
                f"{where} is not a tar archive, or is damaged: {error}.",
                "Get it again from its source.",
            ) from None
        if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            extended += 1
            text = _header(stream, info.size, where)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                name, size = _pax(text, where, name, size)
            continue
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            kind = _KINDS.get(info.type, f"a member of the kind {info.type.decode('latin-1')!r}")
            raise bad_input(
                f"{where} holds {kind} ({info.name!r}); a package holds files only.",
                "Do not use it.",
            )
        folder = info.type == tarfile.DIRTYPE
        length = info.size if size is None else size
        member = Member(name or info.name, 0 if folder else length, folder)
        if member.size < 0:
            raise bad_input(f"{where}: {member.name!r} has a negative size.", "Do not use it.")
        name = size = None
        extended, count = 0, count + 1
        body = _Body(stream, member.size, where)
        yield member, body  # type: ignore[misc]
        body.skip()
        _exactly(stream, -member.size % _BLOCK, where)


class _Body:
    """The bytes of one member."""

    def __init__(self, stream: IO[bytes], size: int, where: str) -> None:
        self._stream, self._left, self._where = stream, size, where

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end of the member."""
        want = self._left if size < 0 else min(size, self._left)
        if not want:
            return b""
        data = self._stream.read(want)
        if not data:
            raise _early(self._where)
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Read past what is left."""
        while self._left:
            self.read(1 << 16)


def _header(stream: IO[bytes], size: int, where: str) -> bytes:
    if not 0 <= size <= _LONGEST_HEADER:
        raise bad_input(f"{where} has an extended header of {size} bytes.", "Do not use it.")
    text = _exactly(stream, size, where)
    _exactly(stream, -size % _BLOCK, where)
    return text


def _pax(
    text: bytes, where: str, name: str | None, size: int | None
) -> tuple[str | None, int | None]:
    """Name and size out of the records `LENGTH KEY=VALUE\\n` of an extended header; the other
    records say nothing that we use."""
    start = 0
    while start < len(text):
        try:
            length = text[start : start + len(str(_LONGEST_HEADER)) + 1].partition(b" ")[0]
            record = text[start : start + int(length)]
            start += int(length)
            key, equals, value = record[len(length) + 1 : -1].partition(b"=")
            if not equals or not record.endswith(b"\n") or int(length) < _SHORTEST_RECORD:
                raise ValueError
            if key == b"path":
                name = value.decode("utf-8", "surrogateescape")
            elif key == b"size":
                size = int(value)
            elif key.startswith(b"GNU.sparse"):
                raise bad_input(
                    f"{where} holds a sparse file; a package holds plain ones only.",
                    "Do not use it.",
                )
        except ValueError:
            raise bad_input(
                f"{where} has a broken extended header.", "Get it again from its source."
            ) from None
    return name, size


def _exactly(stream: IO[bytes], size: int, where: str) -> bytes:
    parts: list[bytes] = []
    left = size
    while left:
        more = stream.read(left)
        if not more:
            raise _early(where)
        parts.append(more)
        left -= len(more)
    return b"".join(parts)


def _early(where: str) -> Exception:
    return bad_input(f"{where} ends before it is complete.", "Get it again from its source.")
