"""Which folders are being built into now, across all processes of this user: two builds of one
package only cost time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from packager import locks
from packager.digests import key_of
from packager.paths import cache_dir, made_cache_dir


@contextlib.contextmanager
def underway(out: Path) -> Iterator[None]:
    """While the block runs, `out` counts as being built; a lock that the system frees however the
    process ends says so."""
    path = _file(out)
    lock = None
    # Where nothing can be written or locked nobody is told, and the build goes on: this is a
    # courtesy.
    with contextlib.suppress(OSError):
        made_cache_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        locks.share(lock)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def is_underway(out: Path) -> bool:
    """Whether another process, or another part of this one, builds into `out` at this moment."""
    try:
        lock = os.open(_file(out), os.O_RDWR)
    except OSError:
        return False
    try:
        locks.take(lock)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _file(out: Path) -> Path:
    return cache_dir() / "underway" / key_of(str(out.absolute()))
