"""Huge pages for the weights of a loaded model: which memory is put into them, and that it takes no
more."""

from __future__ import annotations

import mmap
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import huge_pages
from packager.process import resident_bytes

HUGE = 2 << 20
MAPS = """\
00400000-00500000 r-xp 00000000 08:01 131 /usr/bin/python3
01000000-03000000 rw-p 00000000 00:00 0 [heap]
7f0000001000-7f0010000000 rw-p 00000000 00:00 0
7f0020000000-7f0020800000 rw-p 00000000 00:00 0
7f0030000000-7f0040000000 r--p 00000000 00:00 0
7f0050000000-7f0060000000 rw-p 00000000 08:01 99 /models/model.gguf
7f0070000000-7f0080000000 rw-s 00000000 00:00 0
7ffc00000000-7ffc10000000 rw-p 00000000 00:00 0 [stack]
"""


def test_large_pieces_of_own_memory_are_taken_and_no_file_stack_or_shared_one() -> None:
    assert list(huge_pages.pieces(MAPS)) == [
        (0x1000000, 0x3000000),
        (0x7F0000200000, 0x7F0010000000),
    ]


@given(st.text())
def test_whatever_stands_there_the_pieces_are_whole_huge_pages(text: str) -> None:
    for begin, end in huge_pages.pieces(text):
        assert begin < end and begin % HUGE == end % HUGE == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has them")
def test_what_is_not_in_use_stays_unused_and_the_rest_keeps_its_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    used = 24 << 20
    for place in range(0, used, mmap.PAGESIZE):
        memory[place] = place // mmap.PAGESIZE % 251
    monkeypatch.setenv(huge_pages.VARIABLE, "0")
    assert huge_pages.gather() == 0
    monkeypatch.delenv(huge_pages.VARIABLE)
    before = resident_bytes()
    # An older kernel, or one without room, gathers nothing: nothing else may differ.
    assert huge_pages.gather() >= 0
    assert resident_bytes() - before < 8 << 20
    assert all(
        memory[place] == place // mmap.PAGESIZE % 251 for place in range(0, used, mmap.PAGESIZE)
    )
    memory.close()
