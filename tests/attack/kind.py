"""What a kind of input is to the campaign."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Mutate = Callable[[random.Random, bytes], bytes]


class Wrong(Exception):
    """Something was accepted that should not have been, or stands where it should not."""


@dataclass(frozen=True)
class Kind:
    """One kind: `seed` writes what stands around the input into an empty folder and returns its
    bytes, `read` lets our code read a mutant there. PackError is how it refuses one.

    `cost` is about how many ordinary mutants one of them takes."""

    name: str
    seed: Callable[[Path], bytes]
    mutant: Mutate
    read: Callable[[Path, bytes], Any]
    cost: int = 1
