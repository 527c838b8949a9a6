"""The formats that are the package itself: folder, tar.zst, zip; each cut into pieces where
asked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from packager.shipping import archive, pieces
from packager.shipping.folder import write_folder
from packager.shipping.shipment import Shipment, free_place


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
    whole = out.with_name(f".{out.name}.whole")
    free_place(out)
    free_place(out.with_name(f"{out.name}.001"))
    whole.unlink(missing_ok=True)
    try:
        yield from write(shipment, whole)
        return pieces.cut(whole, limit, out)[0]
    finally:
        whole.unlink(missing_ok=True)
