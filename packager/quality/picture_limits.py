"""How much image embeddings may lose, by the bits of the vision tower: picture_limits.toml, checked
as it is read."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packager.errors import bad_input

FILE = Path(__file__).with_name("picture_limits.toml")


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Cosines at least, between 0 and 1."""

    cosine_mean: float
    cosine_min: float


def limits(grade: str, file: Path = FILE) -> PictureLimits | None:
    """The limits of a class; None where nobody has set any."""
    return _read(file).get(grade)


def grades(file: Path = FILE) -> tuple[str, ...]:
    """The classes that have limits, strictest first."""
    return tuple(_read(file))


@cache
def _read(file: Path) -> dict[str, PictureLimits]:
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise bad_input(f"{file.name}: {error}.") from None
    classes = data.get("classes")
    if data.keys() != {"classes"} or not isinstance(classes, dict) or not classes:
        raise bad_input(f"{file.name}: classes is needed, and nothing else.")
    wanted = set(PictureLimits.__dataclass_fields__)
    for grade, table in classes.items():
        where = f"{file.name}: classes.{grade}"
        if not isinstance(table, dict) or table.keys() != wanted:
            raise bad_input(f"{where} needs exactly {', '.join(sorted(wanted))}.")
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, float) or not 0 < value <= 1:
                raise bad_input(f"{where}.{key} is no number above 0, at most 1.")
    return {grade: PictureLimits(**table) for grade, table in classes.items()}
