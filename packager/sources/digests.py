"""sha256 of large files, remembered: a file is hashed once, and again only when its size, time or
inode has changed.

The memory is one JSON file per folder in the cache, keyed by what `stat` says of each file; losing
it costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from packager.errors import PackError
from packager.files import sha256, write_json
from packager.foreign import bounded_bytes, parse_json
from packager.limits import SETTINGS_BYTES
from packager.paths import cache_dir, made_cache_dir


def digests(
    folder: Path, files: Mapping[str, Path], on_bytes: Callable[[int], None]
) -> dict[str, str]:
    """sha256 in hexadecimal of every file by name; `on_bytes` hears of every chunk, of a remembered
    file at once."""
    memory = (
        cache_dir()
        / "digests"
        / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]}.json"
    )
    known = _read(memory)
    by_path: dict[str, tuple[list[int], str]] = {}
    for name, path in files.items():
        stamp = _stamp(path)
        if name in known and known[name][0] == stamp:
            by_path[name] = known[name]
            on_bytes(stamp[0])
        else:
            digest = sha256(path, on_bytes)
            by_path[name] = (stamp, digest)
    if by_path != known:
        with contextlib.suppress(OSError):
            made_cache_dir()
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, by_path)
    return {name: digest for name, (_, digest) in by_path.items()}


def _stamp(path: Path) -> list[int]:
    """What changes when a file does, links followed. The change time cannot be set back by hand as
    the modification time can."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(memory: Path) -> dict[str, tuple[list[int], str]]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, PackError):
        rows = parse_json(bounded_bytes(memory, SETTINGS_BYTES), str(memory))
        return {
            name: ([int(part) for part in stamp], str(digest))
            for name, (stamp, digest) in rows.items()
        }
    return {}
