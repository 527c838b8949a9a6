"""How much each class of recipes may lose, and how many tokens are read: thresholds.toml, checked
as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.foreign import load_toml

FILE = Path(__file__).parent / "thresholds.toml"
_LIMITS = ("kl_mean", "top1", "perplexity_ratio")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a class of recipes must hold: at most `kl_mean` nats and `perplexity_ratio`, at least
    `top1`, a share. `source` says why."""

    grade: str
    kl_mean: float
    top1: float
    perplexity_ratio: float
    source: str


def limits(grade: str | None, file: Path = FILE) -> Limits | None:
    """The limits of a class; None where nobody has set any, so that the figures are reported and
    nothing is enforced."""
    return _read(file)[0].get(grade or "")


def grades(file: Path = FILE) -> tuple[str, ...]:
    """The classes that have limits, strictest first."""
    return tuple(_read(file)[0])


def tokens_for(parameters: int, file: Path = FILE) -> int:
    """How many tokens are read for a model of so many weights unless the user says otherwise."""
    return next(count for below, count in _read(file)[1] if below is None or parameters < below)


@cache
def _read(file: Path) -> tuple[dict[str, Limits], tuple[tuple[int | None, int], ...]]:
    try:
        data = load_toml(file.read_text("utf-8"))
    except ValueError as error:
        raise bad_input(f"{file.name}: {error}.") from None
    unknown = data.keys() - {"classes", "tokens"}
    if unknown or not data.get("classes") or not data.get("tokens"):
        raise bad_input(
            f"{file.name}: "
            + (
                f"{sorted(unknown)[0]!r} is not known."
                if unknown
                else "classes and tokens are both needed."
            )
        )
    by_grade = {grade: _limits(grade, table, file.name) for grade, table in data["classes"].items()}
    return by_grade, tuple(_tokens(data["tokens"], file.name))


def _limits(grade: str, table: Any, file: str) -> Limits:
    where = f"{file}: classes.{grade}"
    if not isinstance(table, dict) or table.keys() != {*_LIMITS, "source"}:
        raise bad_input(f"{where} needs exactly {', '.join(_LIMITS)} and source.")
    for key in _LIMITS:
        if (
            not isinstance(table[key], int | float)
            or isinstance(table[key], bool)
            or not table[key] > 0
        ):
            raise bad_input(f"{where}.{key} is not a positive number.")
    if table["top1"] > 1:
        raise bad_input(f"{where}.top1 is a share, at most 1.")
    if not isinstance(table["source"], str) or not table["source"].strip():
        raise bad_input(f"{where}.source names no source.")
    return Limits(grade, **table)


def _tokens(rows: Any, file: str) -> list[tuple[int | None, int]]:
    steps: list[tuple[int | None, int]] = []
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        last = number == len(rows) - 1
        if not isinstance(row, dict) or row.keys() != ({"count"} if last else {"below", "count"}):
            raise bad_input(
                f"{file}: tokens[{number}] needs exactly {'count' if last else 'below and count'}."
            )
        if not all(isinstance(value, int) and value > 0 for value in row.values()):
            raise bad_input(
                f"{file}: tokens[{number}] holds something other than a whole number above 0."
            )
        if not last and steps and row["below"] <= (steps[-1][0] or 0):
            raise bad_input(f"{file}: tokens[{number}].below does not ascend.")
        steps.append((row.get("below"), row["count"]))
    if not steps:
        raise bad_input(f"{file}: tokens is not a list of tables.")
    return steps
