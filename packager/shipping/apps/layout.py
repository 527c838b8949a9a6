"""What the formats for apps share: the package copied whole into a folder that is being made, and
its list of sums."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from packager.files import write_atomically
from packager.shipping.apps.snippets import FOLDER
from packager.shipping.folder import copy_entry
from packager.shipping.shipment import Shipment


def copy_package(
    shipment: Shipment, folder: Path, limit: int | None = None
) -> Generator[int, None, None]:
    """Copy the package into `folder`/package, every byte compared; files above `limit` bytes in
    pieces. Yields sizes."""
    for entry in shipment.files:
        yield from copy_entry(shipment, entry, folder / FOLDER / entry.path, limit)


def write_sums(shipment: Shipment, folder: Path) -> None:
    """`SHA256SUMS` as `sha256sum --check` reads it; a path of a manifest has no character that
    would need an escape there."""
    lines = [f"{entry.sha256}  {FOLDER}/{entry.path}\n" for entry in shipment.files]
    write_atomically(folder / "SHA256SUMS", "".join(lines).encode())
