"""What is new in a package, as a patch: whoever has the old one gets the new one with it, and
downloads no more than that.

A file that both have is one step. Of the others, both sides are cut where their content says so,
what the old package has anywhere is copied from there, and the rest is compressed against the old
bytes that stand in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from packager.errors import bad_input, usage
from packager.json_values import JsonDict
from packager.package import manifest
from packager.package.manifest import FileEntry
from packager.package.verify import verify_names
from packager.shipping.archive import zstd
from packager.shipping.chunks import content_chunks
from packager.shipping.patch_format import (
    MOST_DATA,
    MOST_REFERENCE,
    Data,
    Header,
    Stretch,
    encode,
    files_sha256,
)
from packager.shipping.shipment import Shipment, new_file, outside, prepare

_LEVEL = 3
_AVERAGE = 1 << 15
_MOST_CHUNKS = 1 << 17
_BEFORE, _BEHIND = 1 << 16, 1 << 18
"""How far around its own place new content may refer to old one."""


@dataclass(frozen=True, slots=True)
class Made:
    """A patch: where it lies, its bytes, and what it is for. `copied` bytes of the new package are
    in the old one."""

    path: Path
    bytes: int
    header: Header
    copied: int


def write_patch(
    old: Path, new: Path, out: Path, *, allow_dummy: bool = False, accepted: Collection[str] = ()
) -> Generator[tuple[int, int], None, Made]:
    """Write the patch from one package to another to the new file `out`; yields (bytes done, bytes
    in all).

    Raises PackError: 2 for a place that is taken, two packages that are one, and whatever stops an
    export of the new one; 6 for a package that is not what its manifest says.
    """
    shipment = prepare(new, allow_dummy=allow_dummy, accepted=accepted)
    base = _old(old)
    for package in (old, new):
        outside(out, package)
    if base.manifest.data == shipment.manifest.data:
        raise usage(f"{old} and {new} are the same package.", "There is nothing to update.")
    header = Header(
        base.name,
        files_sha256(base.files),
        shipment.name,
        shipment.files[0].sha256,
        shipment.total,
        shipment.files[0].size,
    )
    same = {(entry.size, entry.sha256): number for number, entry in enumerate(base.files)}
    changed = {entry.path for entry in shipment.files if (entry.size, entry.sha256) not in same}
    kept = {(entry.size, entry.sha256) for entry in shipment.files}
    sources = (
        [
            number
            for number, entry in enumerate(base.files)
            if (entry.size, entry.sha256) not in kept
        ]
        if changed
        else []
    )
    total = sum(base.files[number].size for number in sources) + sum(
        entry.size for entry in shipment.files if entry.path in changed
    )
    done = 0
    with new_file(out) as temporary, temporary.open("wb") as raw, _Old(base) as origin:
        sink = _Sink(raw)
        sink.write(header.encode())
        for size in origin.index(sources):
            done += size
            yield done, total
        for entry in shipment.files:
            number = same.get((entry.size, entry.sha256))
            if number is not None:
                if entry.size:
                    sink.step(Stretch(number, 0, entry.size))
            else:
                for size in _file(sink, origin, shipment, entry):
                    done += size
                    yield done, total
            sink.step(None)
        raw.write(sink.digest.digest())
        raw.flush()
        size = raw.tell()
    return Made(out, size, header, sink.copied)


def _old(package: Path) -> Shipment:
    """The old package without its manifest; no licence stops it, as none of it leaves."""
    known = manifest.read(package)
    findings = verify_names(package)
    if findings:
        raise bad_input(
            f"{package} is not what its manifest says: {findings[0].path} {findings[0].message}.",
            "`qwen-pack verify` names every difference; get the package again.",
        )
    return Shipment(package, known, tuple(sorted(known.files, key=lambda entry: entry.path)))


class _Sink:
    """The patch while it is written: its digest, and copies that follow each other made one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._copy: Stretch | None = None
        self.digest = hashlib.sha256()
        self.copied = 0

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)

    def step(self, step: Stretch | Data | None) -> None:
        last = self._copy
        if isinstance(step, Stretch):
            self.copied += step.length
            if last is not None and (last.file, last.offset + last.length) == (
                step.file,
                step.offset,
            ):
                self._copy = Stretch(last.file, last.offset, last.length + step.length)
                return
        if last is not None:
            self.write(encode(last))
        self._copy = step if isinstance(step, Stretch) else None
        if not isinstance(step, Stretch):
            self.write(encode(step))


class _Old:
    """The old package: where each chunk of its changed files stands, and its bytes."""

    def __init__(self, shipment: Shipment) -> None:
        self.shipment = shipment
        self.numbers = {entry.path: number for number, entry in enumerate(shipment.files)}
        # So coarse that the index of any package stays below some 30 MB.
        self.average = _AVERAGE
        while shipment.total // self.average > _MOST_CHUNKS:
            self.average *= 2
        self._places: dict[bytes, tuple[int, int]] = {}
        self._open: tuple[int, IO[bytes]] | None = None

    def __enter__(self) -> _Old:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._open[1].close()

    def index(self, numbers: list[int]) -> Iterator[int]:
        """Read those files; yields sizes."""
        for number in numbers:
            offset = 0
            for chunk in content_chunks(
                self.shipment.chunks(self.shipment.files[number]), self.average
            ):
                self._places.setdefault(hashlib.sha256(chunk).digest(), (number, offset))
                offset += len(chunk)
                yield len(chunk)

    def find(self, chunk: memoryview) -> tuple[int, int] | None:
        """File and offset of the same bytes."""
        return self._places.get(hashlib.sha256(chunk).digest())

    def read(self, stretch: Stretch) -> bytes:
        """The old bytes of a stretch."""
        if self._open is None or self._open[0] != stretch.file:
            if self._open:
                self._open[1].close()
            self._open = (
                stretch.file,
                (self.shipment.path / self.shipment.files[stretch.file].path).open(
                    "rb", buffering=0
                ),
            )
        self._open[1].seek(stretch.offset)
        return self._open[1].read(stretch.length)


def _file(sink: _Sink, origin: _Old, shipment: Shipment, entry: FileEntry) -> Iterator[int]:
    """The steps of one file that the old package has not; yields sizes."""
    start = (origin.numbers[entry.path], 0) if entry.path in origin.numbers else None
    fresh = bytearray()
    for chunk in content_chunks(shipment.chunks(entry), origin.average):
        size, match = len(chunk), origin.find(chunk)
        if match is None:
            fresh += chunk
        while fresh and (match is not None or len(fresh) >= MOST_DATA):
            start = _data(sink, origin, fresh, start)
        if match is not None:
            sink.step(Stretch(*match, size))
            start = (match[0], match[1] + size)
        yield size
    while fresh:
        start = _data(sink, origin, fresh, start)


def _data(
    sink: _Sink, origin: _Old, fresh: bytearray, place: tuple[int, int] | None
) -> tuple[int, int] | None:
    """One step of new bytes, taken from the front of `fresh`; returns where the old package goes on
    behind them."""
    part = bytes(fresh[:MOST_DATA])
    del fresh[:MOST_DATA]
    reference = Stretch(0, 0, 0)
    if place is not None:
        number, offset = place
        start = max(0, min(offset - _BEFORE, origin.shipment.files[number].size))
        length = min(offset + len(part) + _BEHIND, origin.shipment.files[number].size) - start
        if length > 0:
            reference = Stretch(number, start, min(length, MOST_REFERENCE))
    sink.step(
        Data(
            len(part), reference, packed(part, origin.read(reference) if reference.length else b"")
        )
    )
    return None if place is None else (place[0], place[1] + len(part))


def packed(data: bytes, reference: bytes) -> bytes:
    """`data` under zstd, with what `reference` has of it referred to."""
    library = zstd()
    more: JsonDict = {"dict_data": _prefix(library, reference)} if reference else {}
    compressed: bytes = library.ZstdCompressor(
        level=_LEVEL, write_content_size=True, **more
    ).compress(data)
    return compressed


def unpacked(step: Data, reference: bytes) -> bytes | None:
    """The bytes of a step; None when they are damaged, or not as many as it says."""
    library = zstd()
    more: JsonDict = {"dict_data": _prefix(library, reference)} if reference else {}
    try:
        # Asked first: the library makes room for whatever the frame says.
        if library.frame_content_size(step.packed) != step.size:
            return None
        data: bytes = library.ZstdDecompressor(**more).decompress(
            step.packed, max_output_size=step.size
        )
    except library.ZstdError:
        return None
    return data if len(data) == step.size else None


def _prefix(library: Any, reference: bytes) -> Any:
    return library.ZstdCompressionDict(reference, dict_type=library.DICT_TYPE_RAWCONTENT)
