"""The page cache of Linux: make it forget a file, and see how much of a file it holds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_READ, _SHARED = 1, 1  # PROT_READ, MAP_SHARED: the same on every architecture of Linux


def forget(files: Iterable[Path]) -> float | None:
    """Ask the kernel to drop the files' pages; the share of their bytes that it holds nevertheless,
    None where nobody tells.

    What has not reached the disk yet is written first: such pages cannot be dropped. Neither can
    those that a running process has mapped.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    paths = [path for path in files if path.stat().st_size]
    for path in paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return held_share(paths)


def held_share(files: Iterable[Path]) -> float | None:
    """The share of the files' bytes that the page cache holds, by mincore(2); None where nobody
    tells."""
    if sys.platform != "linux":
        return None
    held = total = 0
    for path in files:
        size = path.stat().st_size
        pages = _held_pages(path, size) if size else (0, 0)
        if pages is None:
            return None
        held, total = held + pages[0], total + pages[1]
    return held / total if total else 0.0


def _held_pages(path: Path, size: int) -> tuple[int, int] | None:
    """Pages of the file in memory, and all of its pages. Mapping alone reads none of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, size, _READ, _SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address is None or address == ctypes.c_void_p(-1).value:
        return None
    try:
        count = -(-size // os.sysconf("SC_PAGE_SIZE"))
        flags = ctypes.create_string_buffer(count)
        if libc.mincore(address, size, flags):
            return None
        return sum(flag & 1 for flag in flags.raw[:count]), count
    finally:
        libc.munmap(address, size)
