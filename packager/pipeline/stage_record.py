"""The record of a cached stage: its facts, the digest of every file beside it, and its own.

Whoever may write into a cache wrote it, so it is read like anything from outside.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from packager.digests import digest_of
from packager.files import hashing, open_to_read
from packager.json_values import JsonObject
from packager.package.manifest import FileEntry, safe_path
from packager.scratch import flush_folder

RECORD = "record.json"
SCHEMA = "qwen-pack/stage/1"

LARGEST_RECORD = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Unfit(Exception):
    """Why a kept stage cannot be used, as the end of a sentence."""


def sealed(facts: JsonObject, files: Sequence[JsonObject]) -> JsonObject:
    """A record with the digest of its own content, which finds damage; whoever may write into the
    cache can write another."""
    body: JsonObject = {"schema": SCHEMA, "facts": facts, "files": list(files)}
    return {**body, "sha256": digest_of(body)}


def read(path: Path) -> tuple[JsonObject, tuple[FileEntry, ...]]:
    """Facts and files of a record. It is foreign input: whoever may write into the cache wrote
    it."""
    handle = open_to_read(path)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_RECORD:
            raise Unfit("has a record that is not a file, or far too large")
        text = file.read(LARGEST_RECORD)
    return parse(text)


def parse(text: bytes) -> tuple[JsonObject, tuple[FileEntry, ...]]:
    """Facts and files in the text of a record. Raises Unfit."""
    if len(text) > LARGEST_RECORD:
        raise Unfit("has a record that is far too large")
    try:
        data = json.loads(text)
        if isinstance(data, dict) and "schema" not in data:
            raise Unfit("has no digests, as an earlier version wrote it")
        if data["schema"] != SCHEMA or data["sha256"] != digest_of(
            {key: value for key, value in data.items() if key != "sha256"}
        ):
            raise Unfit("has a damaged record")
        files = tuple(
            FileEntry(str(row["path"]), int(row["size"]), str(row["sha256"]))
            for row in data["files"]
        )
        facts = data["facts"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unfit("has a damaged record") from None
    sound = all(
        safe_path(row.path) and row.size >= 0 and _SHA256.fullmatch(row.sha256) for row in files
    )
    if not isinstance(facts, dict) or not sound:
        raise Unfit("has a record that names impossible files")
    return facts, files


def compare_names(folder: Path, files: tuple[FileEntry, ...]) -> None:
    """Raise Unfit where there is a link, a device, a file too many, one too few, or one of another
    size."""
    sizes = {row.path: row.size for row in files}
    for path, status in _walk(folder):
        if path == RECORD or stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise Unfit(f"holds a link or a device ({path!r})")
        if path not in sizes:
            raise Unfit(f"holds a file that was not written by the build ({path!r})")
        if sizes.pop(path) != status.st_size:
            raise Unfit(f"is damaged ({path} has another size)")
    if sizes:
        raise Unfit(f"is damaged ({next(iter(sizes))} is missing)")


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder with its own status, in the order of the paths."""
    for parent, names, leaves in os.walk(folder):
        for name in sorted((*names, *leaves)):
            path = Path(parent) / name
            yield path.relative_to(folder).as_posix(), path.lstat()


def sealed_files(folder: Path) -> Generator[int, None, tuple[FileEntry, ...]]:
    """Every file below a folder with its digest, all of it flushed; yields sizes. Links are
    removed: nothing reads them."""
    rows = []
    folders = [folder]
    for path, status in list(_walk(folder)):
        if stat.S_ISDIR(status.st_mode):
            folders.append(folder / path)
        elif stat.S_ISREG(status.st_mode):
            digest = yield from hashing(folder / path, follow=False, flush=True)
            rows.append(FileEntry(path, status.st_size, digest))
        else:
            (folder / path).unlink()
    for inner in reversed(folders):
        flush_folder(inner)
    return tuple(sorted(rows, key=lambda row: row.path))
