"""How much image embeddings may lose, by the bits of the vision tower: picture_limits.toml, checked
as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.quality.class_limits import read_classes

FILE = Path(__file__).with_name("picture_limits.toml")


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Cosines at least, between 0 and 1."""

    cosine_mean: float
    cosine_min: float


def limits(grade: str, file: Path = FILE) -> PictureLimits | None:
    """The limits of a class; None where nobody has set any."""
    return read_classes(file, PictureLimits).get(grade)


def grades(file: Path = FILE) -> tuple[str, ...]:
    """The classes that have limits, strictest first."""
    return tuple(read_classes(file, PictureLimits))
