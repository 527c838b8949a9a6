"""How fast an engine is against a device's rates: the numbers of a speed.toml, checked and with a
source each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.errors import bad_input


@dataclass(frozen=True, slots=True)
class Row:
    """Factors on a device's bandwidth and compute, small operations per layer in a decoding step,
    and the share of the compute that a single token's attention reaches (0: reading the cache
    bounds it)."""

    bandwidth: float
    compute: float
    operations_per_layer: float
    attention: float


@cache
def rows(path: Path) -> dict[str, Row]:
    """The tables of a file by name. Raises PackError (exit code 6) naming file and key for what is
    missing, unknown or not positive."""
    found: dict[str, Row] = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        found[name] = _row(table, f"{path.name}: {name}")
    return found


def _row(table: Any, where: str) -> Row:
    keys = ("bandwidth", "compute", "operations_per_layer", "attention", "source")
    if (
        not isinstance(table, dict)
        or set(table) != set(keys)
        or not isinstance(table["source"], str)
        or len(table["source"]) < 8
    ):
        raise bad_input(f"{where} must have {', '.join(keys)}, and nothing else.")
    numbers = [table[key] for key in keys[:-1]]
    if not all(
        isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < 1000
        for number in numbers[:-1]
    ):
        raise bad_input(f"{where} must have numbers above zero.")
    if (
        isinstance(numbers[-1], bool)
        or not isinstance(numbers[-1], int | float)
        or not 0 <= numbers[-1] <= 1
    ):
        raise bad_input(f"{where}: attention must be a number from 0 to 1.")
    return Row(*map(float, numbers))
