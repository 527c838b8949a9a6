"""Whether a package is the one that the table was made of: its inputs and files give the digest
there, and each file is what the manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from packager.package.content import content_sha256
from packager.shipping.router.table import Entry, Unusable
from packager.shipping.server.parsed import Parsed

# Any: the manifest's JSON, each field of which is looked at before it is used.

_MOST_BYTES = 1 << 26


def manifest_of(entry: Entry) -> list[Parsed]:
    """The files of a package, by its manifest. Raises Unusable where that is another package's than
    the table's."""
    path = entry.folder / "manifest.json"
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES)
        data = json.loads(text)
        files = [_row(row) for row in data["files"]]
        digest = content_sha256(data)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unusable(f"{path} is not a manifest.") from None
    if digest != entry.content_sha256:
        raise Unusable(
            f"{entry.folder} is not the package of {entry.name!r} that route.json names: its "
            "content has another digest."
        )
    return files


def _row(row: Any) -> Parsed:
    path = PurePosixPath(row["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in row["path"] or ":" in row["path"]:
        raise ValueError
    if type(row["size"]) is not int or not isinstance(row["sha256"], str):
        raise ValueError
    return dict(row)


def compare(entry: Entry) -> None:
    """Read every file of a package. Raises Unusable where one is not what the manifest says."""
    rows = manifest_of(entry)
    for row in rows:
        path = entry.folder / row["path"]
        if _passes_link(entry.folder, path) or not path.is_file():
            raise Unusable(f"{path} is missing, or is a link.")
        with path.open("rb") as file:
            whole = path.stat().st_size == row["size"] and (
                hashlib.file_digest(file, "sha256").hexdigest() == row["sha256"]
            )
        if not whole:
            raise Unusable(f"{path} is not what the manifest says.")
    known = {row["path"] for row in rows}
    for path in (entry.folder / "model").rglob("*"):
        if not path.is_dir() and path.relative_to(entry.folder).as_posix() not in known:
            raise Unusable(f"{path} is not in the manifest.")


def _passes_link(folder: Path, path: Path) -> bool:
    between = [path, *path.parents]
    return any(part.is_symlink() for part in between[: between.index(folder)])
