"""Pictures that are drawn from a seed: two things of one colour each, one on the left and one on
the right, on a grey ground with noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
_HEIGHT, _HALF = 96, 64
_DIGITS = {
    "1": ("01100", "00100", "00100", "00100", "00100", "00100", "01110"),
    "4": ("00010", "00110", "01010", "10010", "11111", "00010", "00010"),
    "7": ("11111", "00001", "00010", "00010", "00100", "00100", "00100"),
}

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


def _circle(x: Numbers, y: Numbers) -> Mask:
    return np.asarray(x**2 + y**2 <= 1)


def _square(x: Numbers, y: Numbers) -> Mask:
    return np.asarray((abs(x) <= 0.85) & (abs(y) <= 0.85))


def _triangle(x: Numbers, y: Numbers) -> Mask:
    return np.asarray((y <= 0.9) & (abs(x) <= (y + 1) / 2))


def _digit(rows: tuple[str, ...]) -> Callable[[Numbers, Numbers], Mask]:
    cells = np.array([[cell == "1" for cell in row] for row in rows])

    def mask(x: Numbers, y: Numbers) -> Mask:
        column, row = np.floor((x + 0.75) / 1.5 * 5), np.floor((y + 1) / 2 * 7)
        inside = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
        found: Any = cells[row.clip(0, 6).astype(int), column.clip(0, 4).astype(int)]
        return np.asarray(found & inside)

    return mask


FORMS: dict[str, Callable[[Numbers, Numbers], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    **{name: _digit(rows) for name, rows in _DIGITS.items()},
}


@dataclass(frozen=True)
class Drawn:
    """A picture (96, 128, 3), which no engine resizes, and what it shows: `red circle`, `blue 7`,
    and so on."""

    rgb: NDArray[np.uint8]
    left: str
    right: str


def drawn(chance: random.Random) -> Drawn:
    """One of them."""
    noise = np.random.default_rng(chance.getrandbits(32))
    ground = chance.choice((90, 128, 165))
    picture = ground + noise.normal(0, 6, (_HEIGHT, 2 * _HALF, 3))
    names = []
    for half in range(2):
        colour, form = chance.choice(tuple(COLOURS)), chance.choice(tuple(FORMS))
        size = chance.uniform(20, 28)
        middle_x = _HALF * half + _HALF / 2 + chance.uniform(-3, 3)
        middle_y = _HEIGHT / 2 + chance.uniform(-16, 16)
        y, x = np.mgrid[0:_HEIGHT, 0 : 2 * _HALF]
        mask = FORMS[form]((x - middle_x) / size, (y - middle_y) / size)
        picture[mask] = COLOURS[colour] + noise.normal(0, 6, (int(mask.sum()), 3))
        names.append(f"{colour} {form}")
    return Drawn(picture.clip(0, 255).astype(np.uint8), names[0], names[1])
