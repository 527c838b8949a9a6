"""One machine, many workers: builds share it, a measurement has it to itself.

Two locks on files that the system frees however their process ends. Whoever wants the machine goes
through the gate first, so that a waiting measurement is not overtaken by builds for ever. Where the
disk knows no locks nobody waits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from packager import locks
from packager.device.this_machine import installation_id
from packager.paths import made_cache_dir


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else of this user builds or measures on this machine within the block; waits until
    they are done."""
    with _held(locks.wait):
        yield


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Nobody measures on this machine within the block; waits until they are done."""
    with _held(locks.wait_to_share):
        yield


@contextlib.contextmanager
def claim(name: str) -> Iterator[None]:
    """Nobody else on this disk does the work of that name within the block; waits until they are
    done, when what they left lies in the cache."""
    with _opened(f"unit-{name}") as handle:
        _lock(locks.wait, handle)
        yield


@contextlib.contextmanager
def _held(how: Callable[[int], None]) -> Iterator[None]:
    machine = installation_id()
    with _opened(f"machine-{machine}") as handle:
        with _opened(f"gate-{machine}") as gate:
            _lock(locks.wait, gate)
            _lock(how, handle)
        yield


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    folder: Path = made_cache_dir() / "underway"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(how: Callable[[int], None], handle: int) -> None:
    with contextlib.suppress(OSError):  # a disk that knows no locks
        how(handle)
