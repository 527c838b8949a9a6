"""Locks on open files, which the system frees however their process ends.

Windows has no such locks: there nothing is ever found to be locked, and whoever would remove what
is not locked must ask `AVAILABLE` first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_flock: Callable[[int, int], None] | None = None
_SHARED = _EXCLUSIVE = _WAIT = _WAIT_SHARED = 0
with suppress(ImportError):
    import fcntl

    _flock = fcntl.flock
    _WAIT, _WAIT_SHARED = fcntl.LOCK_EX, fcntl.LOCK_SH
    _SHARED, _EXCLUSIVE = fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB

AVAILABLE = _flock is not None
"""Whether this system locks files."""


def share(descriptor: int) -> None:
    """Lock together with others that share. Raises OSError where one holds it alone, or the disk
    knows no locks."""
    _lock(descriptor, _SHARED)


def take(descriptor: int) -> None:
    """Lock alone, at once. Raises OSError where anybody holds it, or the disk knows no locks."""
    _lock(descriptor, _EXCLUSIVE)


def wait(descriptor: int) -> None:
    """Lock alone, as soon as nobody else holds it. Raises OSError where the disk knows no locks."""
    _lock(descriptor, _WAIT)


def wait_to_share(descriptor: int) -> None:
    """Lock together with others that share, as soon as nobody holds it alone. Raises OSError where
    the disk knows no locks."""
    _lock(descriptor, _WAIT_SHARED)


@contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only one that reads a file of that folder and writes it again, among those who ask for
    that: what two programs add to one file at once would else be what the later one added. Where
    the folder cannot be locked, nobody waits."""
    try:
        descriptor = os.open(folder, os.O_RDONLY) if AVAILABLE else None
    except OSError:
        descriptor = None
    try:
        if descriptor is not None:
            with suppress(OSError):
                wait(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int, how: int) -> None:
    if _flock is not None:
        _flock(descriptor, how)
