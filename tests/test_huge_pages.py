"""Huge pages for the weights of a loaded model: which memory is put into them, and that it takes no
more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import huge_pages
from packager.python import python_environment

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


_GATHERED = """
import json, mmap
from packager import huge_pages
from packager.process import resident_bytes

memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
USED, READ = 24 << 20, 48 << 20
memory.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, READ, mmap.PAGESIZE):
    # Of the second part every other page is read alone.
    if place < USED or place // mmap.PAGESIZE % 2:
        memory[place] = place // mmap.PAGESIZE % 251
    else:
        assert memory[place] == 0
memory.madvise(mmap.MADV_HUGEPAGE)
before = resident_bytes()
gathered = huge_pages.gather()
grown = resident_bytes() - before
kept = all(memory[at] == at // mmap.PAGESIZE % 251 for at in range(0, USED, mmap.PAGESIZE))
print(json.dumps([gathered, grown, kept]))
"""


def gathered(**variables: str) -> tuple[int, int, bool]:
    """What a process of its own gathered and took more, in bytes, and whether its memory kept its
    content. A test worker's threads take and give back memory while they are asked."""
    done = subprocess.run(
        [sys.executable, "-c", _GATHERED],
        env={**python_environment(), **variables},
        capture_output=True,
        check=True,
    )
    own, grown, kept = json.loads(done.stdout)
    return own, grown, kept


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has them")
def test_what_is_not_in_use_or_was_only_read_stays_unused_and_the_rest_keeps_its_content() -> None:
    own, grown, kept = gathered()
    # An older kernel, or one without room, gathers nothing: nothing else may differ.
    assert 0 <= own < 40 << 20
    assert grown < 4 << 20
    assert kept


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has them")
def test_nothing_is_gathered_where_the_variable_says_so() -> None:
    assert gathered(**{huge_pages.VARIABLE: "0"})[0] == 0
