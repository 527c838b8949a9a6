"""A decoded picture small, for a terminal: two colours to a character, one above the other."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from packager.pictures.taken import Pixels

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_POINTS = 3
"""Points in each direction whose mean is the colour of a place."""


def rows(picture: Pixels, columns: int, most_rows: int) -> list[list[tuple[Colour, Colour]]]:
    """Rows of (upper, lower) colours, at most `columns` wide and `most_rows` high, with the sides
    of the picture; a character is taken to be twice as high as wide."""
    scale = max(picture.width / columns, picture.height / (2 * most_rows), 1.0)
    wide = max(1, round(picture.width / scale))
    high = max(1, round(picture.height / scale / 2))
    with (
        picture.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        lines = [list(_line(picture, data, row, wide, 2 * high)) for row in range(2 * high)]
    return [
        list(zip(upper, lower, strict=True))
        for upper, lower in zip(lines[::2], lines[1::2], strict=True)
    ]


def _line(picture: Pixels, data: mmap.mmap, row: int, wide: int, high: int) -> Iterator[Colour]:
    across, down = picture.width / wide, picture.height / high
    parts = [(number + 0.5) / _POINTS for number in range(_POINTS)]
    for column in range(wide):
        points = [
            3 * (int((row + y) * down) * picture.width + int((column + x) * across))
            for y in parts
            for x in parts
        ]
        red, green, blue = (
            sum(data[point + channel] for point in points) // len(points) for channel in range(3)
        )
        yield red, green, blue
