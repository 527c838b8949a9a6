"""Huge pages for the weights of a loaded model: a token reads all of them, and with pages of 4 KiB
the processor looks up a hundred thousand addresses for it.

Linux alone, from 6.1 on (madvise with MADV_COLLAPSE); elsewhere nothing happens. Only memory that
is in use already is put together, so that no more of it is taken. A page that was only ever read
is the system's one page of zeros: it counts as present, and takes memory once it is put together
with others. Source: madvise(2), proc_pid_pagemap(5).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

VARIABLE = "QWEN_PACK_HUGE_PAGES"
"""The variable that is 0 where memory is to stay as the system gives it."""

_COLLAPSE = 25
_SCARCE = (errno.ENOMEM, errno.EBUSY)
"""There is no room for a huge page, or the control group's limit leaves none."""
_PAGE, _HUGE = 4096, 2 << 20
_LEAST = 16 << 20
"""A model's weights lie in larger pieces; what is smaller is not worth the walk."""
_MAPS = Path("/proc/self/maps")
_PAGEMAP = Path("/proc/self/pagemap")
_ENTRY = 8
"""The bytes that pagemap has for a page; the last one holds the bits 56 to 63."""
_OWN = 0x81
"""Bit 63, the page is in memory, and bit 56, this process alone maps it."""
_OWN_BY_LAST_BYTE = bytes(number & _OWN == _OWN for number in range(256))
_STEP = 1 << 30
"""Of so many bytes the entries are read at once: 2 MiB."""
_ROW = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(\S*)")
_IN_USE = b"\x01" * (_HUGE // _PAGE)


def gather() -> int:
    """Put the large pieces of this process's own memory into huge pages, as far as they are in use.
    Returns the bytes that are in such pages now by this; 0 where the system cannot."""
    if not sys.platform.startswith("linux") or os.environ.get(VARIABLE) == "0":
        return 0
    if mmap.PAGESIZE != _PAGE:
        # Systems with larger pages have larger huge ones, which fewer pieces hold.
        return 0
    gathered = 0
    # A system without /proc, a kernel that is older, a C library without these functions.
    with suppress(OSError, AttributeError, ValueError):
        library = ctypes.CDLL(None, use_errno=True)
        maps = _MAPS.read_text(encoding="ascii", errors="replace")
        with _PAGEMAP.open("rb", buffering=0) as pagemap:
            for begin, end in pieces(maps):
                for start, stop in _runs(pagemap, begin, end):
                    size = ctypes.c_size_t(stop - start)
                    if library.madvise(ctypes.c_void_p(start), size, _COLLAPSE) == 0:
                        gathered += stop - start
                    elif ctypes.get_errno() in _SCARCE:
                        # Asking on would push out what others have in memory.
                        return gathered
    return gathered


def pieces(maps: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the large pieces of memory that no file stands behind, from the text of
    /proc/self/maps; both are ends of huge pages."""
    for line in maps.splitlines():
        row = _ROW.match(line)
        if row is None or row[3].startswith(("/", "[stack")):
            continue
        begin = -(-int(row[1], 16) // _HUGE) * _HUGE
        end = int(row[2], 16) // _HUGE * _HUGE
        if end - begin >= _LEAST:
            yield begin, end


def _runs(pagemap: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a piece whose every page is in memory and this process's own, in whole huge
    pages."""
    start: int | None = None
    for place, whole in _huge_pages(pagemap, begin, end):
        if whole and start is None:
            start = place
        elif not whole and start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, end


def _huge_pages(pagemap: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, bool]]:
    """The beginning of each huge page of a piece, and whether all of its pages are in use."""
    for first in range(begin, end, _STEP):
        last = min(first + _STEP, end)
        pagemap.seek(first // _PAGE * _ENTRY)
        entries = pagemap.read((last - first) // _PAGE * _ENTRY)
        own = entries[_ENTRY - 1 :: _ENTRY].translate(_OWN_BY_LAST_BYTE)
        for place in range(first, last, _HUGE):
            page = (place - first) // _PAGE
            yield place, own[page : page + len(_IN_USE)] == _IN_USE
