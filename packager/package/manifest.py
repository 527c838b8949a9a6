"""The manifest of a package: what it says, and how it is read back without trusting it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from packager import limits
from packager.errors import bad_input
from packager.files import write_json
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonDict, JsonObject
from packager.names import fits_everywhere
from packager.records import Contents, Misfit
from packager.scratch import is_ours

NAME = "manifest.json"
SCHEMA = "qwen-pack/manifest/1"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a package: its path below the package with forward slashes, size in bytes, sha256
    in hexadecimal. `role` is what an engine is given it for, where that is not the model itself:
    `projector` for a vision tower or an audio encoder, `draft` for the model that drafts."""

    path: str
    size: int
    sha256: str
    # Which bytes a file has is what two entries are compared for.
    role: str = field(default="", compare=False)

    def as_dict(self) -> JsonObject:
        """The row of a manifest; without a role, none is written."""
        row: JsonDict = {"path": self.path, "size": self.size, "sha256": self.sha256}
        return row | ({"role": self.role} if self.role else {})


PROJECTOR = "projector"
"""The role of the file of a vision tower or an audio encoder."""
DRAFT = "draft"
"""The role of the files of a model that drafts tokens for the package's own."""
_ROLES = ("", PROJECTOR, DRAFT)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read and checked: its files and everything that anything reads, typed;
    `data` is all of it as it stands in the file, for whoever writes it again."""

    data: JsonObject
    files: tuple[FileEntry, ...]
    contents: Contents

    @property
    def name(self) -> str:
        """The package's own name."""
        return self.contents.name


def seal(data: JsonObject) -> JsonObject:
    """The manifest with the digest of its own content, which finds damage (not forgery: that takes
    a signature)."""
    body = {key: value for key, value in data.items() if key != "manifest_sha256"}
    return {**body, "manifest_sha256": _digest(body)}


def write(package: Path, data: JsonObject) -> None:
    """Write the manifest into the folder: sealed, whole or not at all. Raises PackError (exit code
    6) for one that would be too long to be read again."""
    sealed = seal(data)
    size = len(json.dumps(sealed, indent=2, ensure_ascii=False).encode("utf-8", "replace"))
    if size > limits.MANIFEST_BYTES:
        raise bad_input(
            f"The manifest of {package} would have {size} bytes, more than any manifest that is "
            "read.",
            "Nothing was changed. Save fewer measurements, or ask fewer tasks.",
        )
    write_json(package / NAME, sealed)


def _digest(body: JsonObject) -> str:
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def read(package: Path) -> Manifest:
    """Read and check `package`/manifest.json. Raises PackError (exit code 6) naming the file and
    the field."""
    path = package / NAME
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            what = "a link" if stat.S_ISLNK(status.st_mode) else "no file"
            raise bad_input(
                f"{path} is {what}; a package holds files only.",
                "Get the package again from where it was built.",
            )
        text = bounded_bytes(path, limits.MANIFEST_BYTES)
    except FileNotFoundError:
        raise bad_input(
            f"{package} is not a package: it has no {NAME}.",
            _within(package),
        ) from None
    except NotADirectoryError:
        raise bad_input(
            f"{package} is a file, not a package.", "Name the folder that `qwen-pack build` wrote."
        ) from None
    return parse(text, str(path))


def _within(folder: Path) -> str:
    """The way from what holds a package, or was made of one, to the package."""
    inner = folder / "package"
    if os.access(inner / NAME, os.F_OK):
        return f"The package in it is {inner}."
    if os.access(folder / "oci-layout", os.F_OK):
        return (
            "It is an OCI image layout: copy it into a registry with a tool for that, and "
            "`qwen-pack pull` brings the package back."
        )
    return "Name the folder that `qwen-pack build` wrote."


def parse(text: bytes, where: str) -> Manifest:
    """Check the bytes of a manifest; `where` names it in errors."""
    if len(text) > limits.MANIFEST_BYTES:
        raise bad_input(
            f"{where} has {len(text)} bytes, more than any manifest.",
            "Get the package again from where it was built.",
        )
    data = parse_json(text, where, "Get the package again from where it was built.")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise bad_input(f"{where} does not follow {SCHEMA}.", "It may come from a newer qwen-pack.")
    try:
        contents = Contents.from_json(data)
    except Misfit as error:
        raise bad_input(
            f"{where}: {error}.", "Get the package again from where it was built."
        ) from None
    try:
        whole = data.get("manifest_sha256") == seal(data)["manifest_sha256"]
    except (ValueError, RecursionError) as error:
        raise bad_input(f"{where} cannot be hashed: {error}.") from None
    if not whole:
        raise bad_input(
            f"{where} has changed since it was written.",
            "Get the package again from where it was built.",
        )
    return Manifest(data, _files(contents.files, where), contents)


def _files(rows: list[Any], where: str) -> tuple[FileEntry, ...]:
    entries = []
    # The manifest itself is a file of the package, in whatever case a row spells it.
    seen: dict[str, str] = {NAME: NAME}
    if len(rows) > limits.PACKAGE_FILES:
        raise bad_input(f"{where} names {len(rows)} files, more than any package has.")
    for number, row in enumerate(rows):
        label = f"{where}: files[{number}]"
        if not isinstance(row, dict):
            raise bad_input(f"{label} is not an object.")
        path, size, sha256 = row.get("path"), row.get("size"), row.get("sha256")
        if not isinstance(path, str) or not safe_path(path):
            raise bad_input(f"{label} has an unsafe path {path!r}.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise bad_input(f"{label} ({path}) has an invalid size.")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise bad_input(f"{label} ({path}) has an invalid sha256.")
        role = row.get("role", "")
        if role not in _ROLES:
            raise bad_input(f"{label} ({path}) has an unknown role.")
        # What differs only in case or in Unicode form is one file on half of the world's disks.
        folded = _folded(path)
        if folded in seen:
            raise bad_input(
                f"{label}: {path!r} and {seen[folded]!r} are the same file on some systems."
            )
        seen[folded] = path
        entries.append(FileEntry(path, size, sha256, role))
    for entry in entries:
        for folder in PurePosixPath(entry.path).parents:
            other = seen.get(_folded(str(folder)))
            if other is not None:
                raise bad_input(f"{where}: {other!r} is a file, and the folder of {entry.path!r}.")
    return tuple(entries)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def safe_path(path: str) -> bool:
    """Whether a path is one file below the package on every system: relative, plain, no parent, no
    drive, no device of Windows, no control characters; and no temporary of ours, which the next
    command would remove."""
    if not path or path == NAME or "\\" in path or ":" in path or not path.isprintable():
        return False
    parts = path.split("/")
    return (
        len(path.encode("utf-8", "surrogatepass")) <= limits.PATH_BYTES
        and len(parts) <= limits.PATH_PARTS
        and not PurePosixPath(path).is_absolute()
        and all(
            part not in ("", ".", "..") and fits_everywhere(part) and not is_ours(part)
            for part in parts
        )
    )
