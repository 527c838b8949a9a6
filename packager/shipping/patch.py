"""An old package and a patch give exactly the new package, or nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

from packager.errors import PackError, bad_input, no_room
from packager.files import free_bytes, let_all_read, open_to_read
from packager.inspection import refuse_unsafe
from packager.limits import MANIFEST_BYTES
from packager.package import manifest
from packager.package.manifest import FileEntry
from packager.package.package import Package
from packager.package.verify import verify_names
from packager.scratch import flush_folder, flush_tree, scratch_folder
from packager.shipping.delta import unpacked
from packager.shipping.patch_format import Data, Header, Reader, Stretch, files_sha256, opened
from packager.shipping.shipment import free_place, outside
from packager.units import human_bytes

_CHUNK = 1 << 20


def header_of(patch: Path) -> Header:
    """What a patch is for. Raises PackError (exit code 6) for one that is damaged."""
    with opened(patch) as file:
        return Reader(file, str(patch)).header


def apply(patch: Path, old: Path, out: Path) -> Generator[tuple[int, int], None, Package]:
    """Make the new package in the new folder `out`; yields (bytes done, bytes in all). The old one
    stays as it is.

    The folder gets its name when every file in it is what the new manifest says; what a killed
    process left beside it goes with the next. Raises PackError: 2 where `out` is taken; 6 for a
    damaged patch, another old package, one that was changed, or a new one that is not safe to open;
    7 where the disk is too small.
    """
    free_place(out)
    outside(out, old)
    with opened(patch) as file:
        reader = Reader(file, str(patch))
        header = reader.header
        rows = _old(old, header, patch)
        out.parent.mkdir(parents=True, exist_ok=True)
        free = free_bytes(out.parent)
        if free < header.new_bytes:
            raise no_room(
                f"{out.parent} has {human_bytes(free)} free; {header.new_name} takes "
                f"{human_bytes(header.new_bytes)}.",
                "Choose another disk with --out.",
            )
        with scratch_folder(out.parent) as holder, _Old(old, rows, reader) as source:
            new = holder / "new"
            new.mkdir(mode=0o755)
            yield from _build(reader, source, new)
            checked = manifest.read(new)
            refuse_unsafe(new, checked, f"What {patch} makes")
            flush_tree(new)
            free_place(out)
            new.rename(out)
            flush_folder(out.parent)
    return Package(out, checked)


def _old(old: Path, header: Header, patch: Path) -> list[FileEntry]:
    """The files of the old package in the patch's order, when it is the one that the patch starts
    from."""
    known = manifest.read(old)
    digest = files_sha256(known.files)
    if digest != header.old_sha256:
        raise bad_input(
            f"{patch} starts from {header.old_name} with the files {header.old_sha256[:16]}, {old} "
            f"is {known.name} with {digest[:16]}.",
            "Take the patch that starts from this package, or the whole new one.",
        )
    findings = verify_names(old)
    if findings:
        raise _changed(old, findings[0].path)
    return sorted(known.files, key=lambda entry: entry.path)


class _Old:
    """The files of the old package, by number."""

    def __init__(self, path: Path, rows: list[FileEntry], reader: Reader) -> None:
        self.path, self._rows, self._reader = path, rows, reader
        self._open: dict[int, IO[bytes]] = {}

    def __enter__(self) -> _Old:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def read(self, stretch: Stretch) -> Iterator[bytes]:
        """The bytes of a stretch in pieces. Raises PackError (exit code 6) where no such file has
        them."""
        if (
            stretch.file >= len(self._rows)
            or stretch.offset + stretch.length > self._rows[stretch.file].size
        ):
            raise self._reader.broken()
        row = self._rows[stretch.file]
        if stretch.file not in self._open:
            self._open[stretch.file] = os.fdopen(
                open_to_read(self.path / row.path), "rb", buffering=0
            )
        file, left = self._open[stretch.file], stretch.length
        file.seek(stretch.offset)
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise _changed(self.path, row.path)
            left -= len(chunk)
            yield chunk


def _build(reader: Reader, source: _Old, new: Path) -> Iterator[tuple[int, int]]:
    header = reader.header
    if header.manifest_bytes > MANIFEST_BYTES:
        raise reader.broken()
    first = FileEntry(manifest.NAME, header.manifest_bytes, header.new_sha256)
    done = 0
    for size in _write(reader, source, first, new / manifest.NAME):
        done += size
    known = manifest.parse((new / manifest.NAME).read_bytes(), f"The manifest in {reader.where}")
    total = done + sum(entry.size for entry in known.files)
    if total != header.new_bytes:
        raise reader.broken()
    for entry in sorted(known.files, key=lambda entry: entry.path):
        (new / entry.path).parent.mkdir(parents=True, exist_ok=True)
        for size in _write(reader, source, entry, new / entry.path):
            done += size
            yield done, total
    reader.finish()


def _write(reader: Reader, source: _Old, entry: FileEntry, path: Path) -> Iterator[int]:
    """One file of the new package; yields sizes."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for step in reader.steps():
            for piece in _bytes(reader, source, step):
                size += len(piece)
                if size > entry.size:
                    raise reader.broken()
                digest.update(piece)
                file.write(piece)
                yield len(piece)
        file.flush()
        os.fsync(file.fileno())
        let_all_read(file)
    if size != entry.size or digest.hexdigest() != entry.sha256:
        # The patch itself is as it was written: it was compared with its digest.
        raise _changed(source.path, entry.path)


def _bytes(reader: Reader, source: _Old, step: Stretch | Data) -> Iterator[bytes]:
    if isinstance(step, Stretch):
        yield from source.read(step)
        return
    data = unpacked(step, b"".join(source.read(step.reference)))
    if data is None:
        # Old bytes that changed make nonsense of what refers to them.
        raise _changed(source.path, "a file that the patch refers to")
    yield data


def _changed(old: Path, what: str) -> PackError:
    return bad_input(
        f"{old} is not what its manifest says ({what}), or the patch was not made from it: nothing "
        "was written.",
        "`qwen-pack verify` names every difference; get the package again.",
    )
