"""Questions about drawn pictures, each made from its name; needs no torch."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import drawings

SEED = 20261127


@dataclass(frozen=True)
class Example:
    """A picture (height, width, 3), a question about it and the answer."""

    rgb: NDArray[np.uint8]
    question: str
    answer: str


def example(name: str) -> Example:
    """The one of that name; always the same."""
    chance = random.Random(f"{SEED}/{name}")
    drawn = drawings.drawn(chance)
    side = chance.choice(("left", "right"))
    return Example(
        drawn.rgb, f"What is on the {side}?", drawn.left if side == "left" else drawn.right
    )
