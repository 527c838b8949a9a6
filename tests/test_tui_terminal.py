"""The interface on a raw terminal: what a key costs on a slow line, and that a partial repaint
shows the same as a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tests.support.raw_terminal import RawTerminal
from tests.support.terminal_cells import TerminalCells
from tui.changed_cells import ChangedCells

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 12, 3
STYLES = [Style(), Style(bold=True), Style(color="red"), Style(color="blue", bgcolor="white")]
LINES = st.lists(
    st.lists(
        st.tuples(st.text("abc 漢─", min_size=1, max_size=6), st.sampled_from(STYLES)), max_size=4
    ),
    min_size=HEIGHT,
    max_size=HEIGHT,
)


def update(lines: list[list[tuple[str, Style]]]) -> LayoutUpdate:
    strips = [
        Strip([Segment(text, style) for text, style in line]).adjust_cell_length(WIDTH)
        for line in lines
    ]
    return LayoutUpdate([[strip] for strip in strips], Region(0, 0, WIDTH, HEIGHT))


@given(st.lists(LINES, min_size=1, max_size=5))
def test_writing_only_what_changed_ends_in_the_same_screen_as_writing_all(
    frames: list[list[list[tuple[str, Style]]]],
) -> None:
    console = Console(force_terminal=True, color_system="truecolor", width=WIDTH, height=HEIGHT)
    shown, terminal = ChangedCells(), TerminalCells()
    for frame in frames:
        terminal.write(shown.take(update(frame), console))
        whole = TerminalCells()
        whole.write(ChangedCells().take(update(frame), console))
        assert terminal.cells == whole.cells
    assert shown.take(update(frames[-1]), console) == ""
    shown.forget()
    assert shown.take(update(frames[-1]), console) != ""


def test_an_arrow_costs_a_slow_line_little_and_a_screen_that_rests_nothing(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(own_cache))
    with RawTerminal(folder=tmp_path) as terminal:
        terminal.until("Where will it run?")
        terminal.read()
        terminal.press("j")
        arrows = [terminal.press("j")[0] for _ in range(3)]
        assert 0 < max(arrows) < 4096
        assert terminal.idle(2) < 200


def test_a_program_that_ends_before_its_screen_is_told_at_once(tmp_path: Path) -> None:
    with (
        RawTerminal(folder=tmp_path, python="/bin/false") as terminal,
        pytest.raises(AssertionError, match="ended with 1 before it wrote"),
    ):
        terminal.until("Where will it run?")
