"""A package as a plain folder: a copy, or one whose large files are in pieces, and back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from packager.errors import PackError, bad_input, usage
from packager.files import folder_that_appears_whole, let_all_read, write_json
from packager.foreign import bounded_bytes, parse_json
from packager.inspection import refuse_unsafe
from packager.json_values import JsonObject
from packager.limits import MANIFEST_BYTES
from packager.package import manifest
from packager.package.manifest import FileEntry
from packager.package.package import Package
from packager.package.verify import verify_names
from packager.shipping import pieces
from packager.shipping.shipment import Shipment, free_place

PIECES = "pieces.json"
SCHEMA = "qwen-pack/pieces/1"


def write_folder(
    shipment: Shipment, out: Path, limit: int | None = None
) -> Generator[int, None, None]:
    """Copy the package to the new folder `out`; yields sizes. Files above `limit` bytes become
    pieces, which pieces.json lists."""
    free_place(out)
    with folder_that_appears_whole(out) as folder:
        rows = []
        for entry in shipment.files:
            parts = yield from copy_entry(shipment, entry, folder / entry.path, limit)
            if len(parts) > 1:
                rows.append(
                    {
                        "path": entry.path,
                        "size": entry.size,
                        "sha256": entry.sha256,
                        "pieces": parts,
                    }
                )
        if rows:
            write_json(folder / PIECES, {"schema": SCHEMA, "name": shipment.name, "files": rows})


def copy_entry(
    shipment: Shipment, entry: FileEntry, final: Path, limit: int | None
) -> Generator[int, None, list[JsonObject]]:
    """Write one file of a package, in pieces of at most `limit` bytes; yields sizes, returns name,
    size and sha256 of each piece."""
    final.parent.mkdir(parents=True, exist_ok=True)
    places = pieces.names(
        final, pieces.count_of(entry.size, limit) if limit and entry.size > limit else 1
    )
    room = limit if len(places) > 1 and limit else entry.size
    rows: list[JsonObject] = []
    rest = b""
    chunks = shipment.chunks(entry)
    for destination in places:
        digest, size = hashlib.sha256(), 0
        with destination.open("xb") as file:
            while size < room and (chunk := rest or next(chunks, b"")):
                chunk, rest = chunk[: room - size], chunk[room - size :]
                digest.update(chunk)
                size += file.write(chunk)
                yield len(chunk)
            file.flush()
            os.fsync(file.fileno())
            let_all_read(file)
        rows.append({"name": destination.name, "size": size, "sha256": digest.hexdigest()})
    next(chunks, None)  # the end of the chunks compares the whole with the manifest
    return rows


def join(folder: Path, out: Path) -> Generator[tuple[int, int], None, Package]:
    """A folder with pieces.json back into a package in the new folder `out`; yields (bytes done,
    bytes in all).

    Every joined file is compared with the manifest. Raises PackError (exit code 6) for pieces that
    are missing or changed.
    """
    free_place(out)
    known = manifest.read(folder)
    cut = _rows(folder)
    total = sum(entry.size for entry in known.files)
    done = 0
    with folder_that_appears_whole(out) as new:
        (new / manifest.NAME).write_bytes((folder / manifest.NAME).read_bytes())
        for entry in known.files:
            (new / entry.path).parent.mkdir(parents=True, exist_ok=True)
            parent = (folder / entry.path).parent
            sources = (
                [parent / name for name in cut[entry.path]]
                if entry.path in cut
                else [folder / entry.path]
            )
            digest, size = hashlib.sha256(), 0
            with (new / entry.path).open("xb") as file:
                for source in sources:
                    if source.is_symlink() or not source.is_file():
                        raise bad_input(
                            f"{source} is missing, or is not a file.",
                            "Bring all pieces into one folder.",
                        )
                    with source.open("rb", buffering=0) as piece:
                        while (chunk := piece.read(1 << 20)) and size <= entry.size:
                            digest.update(chunk)
                            size += file.write(chunk)
                            done += len(chunk)
                            yield done, total
            if size != entry.size or digest.hexdigest() != entry.sha256:
                raise bad_input(
                    f"{folder}: {entry.path} is not what the manifest says.",
                    "Get its pieces again.",
                )
        checked = manifest.read(new)
        refuse_unsafe(new, checked, str(folder))
    return Package(out, checked)


def _rows(folder: Path) -> dict[str, list[str]]:
    """Per file that is in pieces, their names, which must be plain ones."""
    path = folder / PIECES
    if not path.is_file() or path.is_symlink():
        if any(finding.kind == "missing" for finding in verify_names(folder)):
            raise bad_input(
                f"{folder} holds no {PIECES}, and not all files of its manifest.",
                f"Bring {PIECES} along with the pieces.",
            )
        raise usage(f"{folder} holds no {PIECES}: its files are whole.", "Use the folder as it is.")
    try:
        data = parse_json(bounded_bytes(path, MANIFEST_BYTES), str(path))
        if data["schema"] != SCHEMA:
            raise ValueError
        rows = {
            str(row["path"]): [str(piece["name"]) for piece in row["pieces"]]
            for row in data["files"]
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _broken(path) from None
    for name, parts in rows.items():
        own = name.rpartition("/")[2]
        if parts != [f"{own}.{number:03d}" for number in range(1, len(parts) + 1)]:
            raise _broken(path)
    return rows


def _broken(path: Path) -> PackError:
    return bad_input(
        f"{path} does not follow {SCHEMA}.", "Get the folder again from where it was written."
    )
