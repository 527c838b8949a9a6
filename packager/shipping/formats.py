"""The formats that are the package itself: folder, tar.zst, zip; each cut into pieces where
asked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from packager.scratch import scratch_folder
from packager.shipping import archive, pieces
from packager.shipping.folder import write_folder
from packager.shipping.shipment import Shipment, place_all


def folder(shipment: Shipment, out: Path, limit: int | None) -> Generator[int, None, None]:
    """A folder with the files of the package."""
    return write_folder(shipment, out, limit)


def tar_zst(shipment: Shipment, out: Path, limit: int | None) -> Generator[int, None, Path]:
    """A tar, compressed by zstd; returns where it lies, or its first piece."""
    return _cut(archive.write_tar_zst, shipment, out, limit)


def zip_file(shipment: Shipment, out: Path, limit: int | None) -> Generator[int, None, Path]:
    """A zip; returns where it lies, or its first piece."""
    return _cut(archive.write_zip, shipment, out, limit)


def _cut(
    write: Callable[[Shipment, Path], Generator[int, None, None]],
    shipment: Shipment,
    out: Path,
    limit: int | None,
) -> Generator[int, None, Path]:
    if limit is None:
        yield from write(shipment, out)
        return out
    pieces.count_of(shipment.total, limit)
    with scratch_folder(out.parent) as holder:
        whole = holder / out.name
        yield from write(shipment, whole)
        parts = pieces.cut(whole, limit)
        # The first piece last: without it nobody takes the others for an archive.
        pairs = [(part, out.with_name(part.name)) for part in reversed(parts)]
        place_all(holder, pairs)
    return pairs[-1][1]
