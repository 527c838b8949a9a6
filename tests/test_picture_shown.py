"""A picture small in the terminal: its colours and sides, and nothing where that cannot be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from packager.cli.picture_shown import show
from packager.pictures.small import rows
from packager.pictures.taken import Pixels

RED, BLUE = (200, 30, 30), (0, 0, 255)


def picture(folder: Path, width: int, height: int) -> Pixels:
    """Red above, blue below."""
    path = folder / "0.rgb"
    half = height // 2
    path.write_bytes(bytes(RED) * width * half + bytes(BLUE) * width * (height - half))
    return Pixels(path, width, height)


@pytest.mark.parametrize(
    ("width", "height", "columns", "lines"),
    [(640, 480, 32, 12), (2000, 10, 32, 1), (10, 2000, 1, 12), (8, 8, 8, 4), (1, 2, 1, 1)],
)
def test_it_keeps_its_colours_and_sides(
    tmp_path: Path, width: int, height: int, columns: int, lines: int
) -> None:
    found = rows(picture(tmp_path, width, height), 32, 12)
    assert (len(found), {len(row) for row in found}) == (lines, {columns})
    assert found[0][0][0] == RED and found[-1][-1][1] == BLUE


def test_it_is_drawn_in_a_terminal_of_many_colours_alone(tmp_path: Path) -> None:
    def drawn(**how: Any) -> str:
        out = io.StringIO()
        show([picture(tmp_path, 64, 64)] * 9, Console(file=out, width=80, **how))
        return out.getvalue()

    many = drawn(force_terminal=True, color_system="truecolor")
    assert many.count("▀") == 4 * 12 * 24
    assert "38;2;200;30;30" in many and "48;2;0;0;255" in many
    assert drawn(force_terminal=True, color_system="256").count("▀") == 4 * 12 * 24
    assert drawn(force_terminal=False) == drawn(force_terminal=True, color_system="standard") == ""
    assert drawn(force_terminal=True, color_system="truecolor", no_color=True) == ""
