"""From an archive back to a package: only the files that its manifest names, each compared before
anything gets its name."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from packager import limits
from packager.errors import bad_input, no_room, usage
from packager.files import folder_that_appears_whole, free_bytes
from packager.inspection import refuse_unsafe
from packager.package import manifest
from packager.package.manifest import FileEntry, Manifest
from packager.package.package import Package
from packager.shipping import pieces
from packager.shipping.archive import reading, zstd
from packager.shipping.shipment import free_place
from packager.shipping.tar_reader import Member, members
from packager.units import human_bytes

_CHUNK = 1 << 20

_Members = Iterator[tuple[Member, IO[bytes]]]


def unpack(archive: Path, out: Path) -> Generator[tuple[int, int], None, Package]:
    """Unpack `archive` (tar.zst or zip, by its content) into the new folder `out`; yields (bytes
    done, bytes in all).

    Nothing outside a temporary folder beside `out` is touched before all is read and right. Raises
    PackError: exit code 6 for links, paths that lead outside, files twice, files that the manifest
    does not name or whose bytes it does not name, and files that are not safe to open; 2 where
    `out` exists.
    """
    free_place(out)
    parts = pieces.found(archive)
    if not parts[0].is_file():
        raise usage(
            f"There is no file {archive}.", "Name an archive that `qwen-pack export` wrote."
        )
    with parts[0].open("rb") as file:
        start = file.read(4)
    where = str(archive)
    if start == b"\x28\xb5\x2f\xfd":
        members = _tar_members(pieces.joined(parts), where)
        kinds: tuple[type[Exception], ...] = (zstd().ZstdError,)
    elif start[:2] == b"PK":
        members = _zip_members(pieces.joined(parts), where)
        # RuntimeError and NotImplementedError: what zipfile says of encryption and of versions it
        # does not know; the others are what it makes of impossible times, offsets and lengths.
        kinds = (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
            OverflowError,
            LookupError,
            struct.error,
        )
    else:
        piece = re.fullmatch(r"(.+)\.\d{3}", archive.name)
        first = archive.with_name(f"{piece[1]}.001") if piece else archive
        way = (
            "Name an archive that `qwen-pack export` wrote."
            if first == archive
            else f"Of an archive in pieces, name the first: {first}."
        )
        raise bad_input(f"{archive} is neither a tar.zst nor a zip.", way)
    with _sentences(where, kinds), folder_that_appears_whole(out) as folder, closing(members):
        known = _first(next(members, None), where)
        _plausible(known[0], sum(part.stat().st_size for part in parts), out, where)
        (folder / manifest.NAME).write_bytes(known[1])
        yield from _files(members, known[0], folder, where)
        checked = manifest.read(folder)
        refuse_unsafe(folder, checked, where)
    return Package(out, checked)


def default_name(archive: Path) -> str:
    """The name of a package's folder after its archive: without the endings that an export
    gives."""
    name = re.sub(r"\.\d{3}$", "", archive.name)
    for ending in (".tar.zst", ".zip", "-dir"):
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending)
    return f"{name}-unpacked"


def _first(item: tuple[Member, IO[bytes]] | None, where: str) -> tuple[Manifest, bytes, str]:
    """The manifest, which must come first: everything after it is compared with it."""
    if item is None or _inner(item[0].name) != manifest.NAME:
        raise bad_input(
            f"{where} does not begin with the manifest of a package.",
            "Unpack it with another tool, and let `qwen-pack verify` look at the folder.",
        )
    member, body = item
    if member.size > limits.MANIFEST_BYTES:
        raise bad_input(
            f"{where}: the manifest has {member.size} bytes, more than any manifest.",
            "Do not use it.",
        )
    text = b"".join(iter(lambda: body.read(_CHUNK), b""))
    return manifest.parse(text, f"{where}: {manifest.NAME}"), text, member.name.split("/")[0]


def _plausible(known: Manifest, packed: int, out: Path, where: str) -> None:
    """Raise PackError for a package that no archive of `packed` bytes holds (exit code 6), or no
    disk (7), before its first file is written."""
    total = sum(entry.size for entry in known.files)
    if total > limits.EXPANSION_FREE + limits.EXPANSION * packed:
        raise bad_input(
            f"{where} has {packed} bytes and says that it holds {total}, more than "
            f"{limits.EXPANSION} times as many.",
            "Do not use it.",
        )
    free = free_bytes(out.parent)
    if free < total:
        raise no_room(
            f"{out.parent} has {human_bytes(free)} free; the package takes {human_bytes(total)}.",
            "Choose another disk with --out.",
        )


def _files(
    found: _Members, known: Manifest, folder: Path, where: str
) -> Generator[tuple[int, int], None, None]:
    rows = {entry.path: entry for entry in known.files}
    named = {*rows, manifest.NAME}
    total = sum(entry.size for entry in known.files)
    done = 0
    for member, body in found:
        if member.folder:
            continue
        path = _inner(member.name)
        entry = rows.pop(path, None) if path else None
        if entry is None:
            what = "twice" if path in named else "which its manifest does not name"
            raise bad_input(
                f"{where} holds {member.name!r} {what}.",
                "Do not use it; get it again from where it comes from.",
            )
        if member.size != entry.size:
            raise bad_input(
                f"{where}: {path} has {member.size} bytes instead of {entry.size}.",
                "Get it again from its source.",
            )
        for size in _write(body, entry, folder / entry.path, where):
            done += size
            yield done, total
    if rows:
        raise bad_input(
            f"{where} lacks {sorted(rows)[0]}, which its manifest names.",
            "Get it again from its source.",
        )


def _write(body: IO[bytes], entry: FileEntry, path: Path, where: str) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    written = 0
    with path.open("xb") as file:
        while chunk := body.read(_CHUNK):
            written += len(chunk)
            if written > entry.size:
                break
            digest.update(chunk)
            file.write(chunk)
            yield len(chunk)
    if written != entry.size or digest.hexdigest() != entry.sha256:
        raise bad_input(
            f"{where}: {entry.path} is not what the manifest says.",
            "Get it again from its source.",
        )


def _inner(name: str) -> str | None:
    """The path below the one folder that an archive of ours holds; None for a path that no package
    can have.

    Only what the manifest names is ever written, and the manifest holds safe paths alone: this is
    the second lock.
    """
    top, slash, rest = name.removeprefix("./").partition("/")
    if not slash or top in ("", "..") or not (rest == manifest.NAME or manifest.safe_path(rest)):
        return None
    return rest


def _tar_members(archive: IO[bytes], where: str) -> Generator[tuple[Member, IO[bytes]], None, None]:
    with reading(archive) as stream:
        yield from members(stream, where)


def _zip_members(archive: IO[bytes], where: str) -> Generator[tuple[Member, IO[bytes]], None, None]:
    with archive, zipfile.ZipFile(_Sparing(archive)) as file:
        rows = file.infolist()
        if len(rows) > limits.ARCHIVE_MEMBERS:
            raise bad_input(f"{where} holds {len(rows)} files.", "Do not use it.")
        for row in rows:
            _refuse_odd(row, where)
            with file.open(row) as body:
                yield Member(row.filename, row.file_size, row.is_dir()), body


class _Sparing(io.BufferedIOBase):
    """A zip whose list of files, which zipfile reads in one piece, is no longer than one of a
    package can be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        # Without a size zipfile reads what stands at the end, at most a comment of 64 kB.
        most = limits.ZIP_DIRECTORY_BYTES + 1
        data = self._file.read(most if size is None or size < 0 else min(size, most))
        if len(data) > limits.ZIP_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its list of files is longer than any package's")
        return data


@contextmanager
def _sentences(where: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """What the libraries raise over damaged archives, while they list members or read them, as one
    sentence."""
    try:
        yield
    except Exception as error:
        # What lies before the start of a file is no OSError of a disk: those have a number.
        nowhere = isinstance(error, OSError) and error.errno in (None, errno.EINVAL)
        if not nowhere and not isinstance(error, kinds):
            raise
        way = "Get it again from its source"
        # A zip's list of files is its end, so without its last piece it looks like no zip.
        way += ", with all of its pieces." if where.endswith(".001") else "."
        raise bad_input(f"{where} is damaged: {str(error).rstrip('.')}.", way) from None


def _refuse_odd(row: zipfile.ZipInfo, where: str) -> None:
    mode = row.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
        raise bad_input(
            f"{where} holds a link or a device ({row.filename!r}); a package holds files only.",
            "Do not use it.",
        )
    if row.flag_bits & 0x1:
        raise bad_input(
            f"{where} holds an encrypted file ({row.filename!r}).",
            "Ask for one without a password.",
        )
    if row.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise bad_input(
            f"{where} holds {row.filename!r} in a compression that is neither stored nor deflated.",
            "Write it with another tool.",
        )
