"""What the formats for apps share: the package copied whole into a folder that is being made, and
its list of sums."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from packager.files import write_atomically, write_json
from packager.shipping import added as added_adapters
from packager.shipping.added import Added
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


def copy_added(
    added: Sequence[Added], shipment: Shipment, folder: Path
) -> Generator[int, None, None]:
    """Copy the adapters of the package into `folder`/adapters, each in a folder of its name, and
    list them in adapters.json; nothing where there are none. Yields sizes."""
    for row in added:
        for entry in row.shipment.files:
            copy = folder / added_adapters.FOLDER / row.name / entry.path
            yield from copy_entry(row.shipment, entry, copy, None)
    if added:
        write_json(folder / added_adapters.LIST, added_adapters.listed(added, shipment))


def write_sums(shipment: Shipment, folder: Path, added: Sequence[Added] = ()) -> None:
    """`SHA256SUMS` as `sha256sum --check` reads it; a path of a manifest has no character that
    would need an escape there."""
    lines = [f"{entry.sha256}  {FOLDER}/{entry.path}\n" for entry in shipment.files]
    lines += [
        f"{entry.sha256}  {added_adapters.FOLDER}/{row.name}/{entry.path}\n"
        for row in added
        for entry in row.shipment.files
    ]
    write_atomically(folder / "SHA256SUMS", "".join(lines).encode())
