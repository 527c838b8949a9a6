"""How much vectors and scores may lose, by class of recipe: retrieval_limits.toml, checked as it is
read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.quality.class_limits import read_classes

FILE = Path(__file__).with_name("retrieval_limits.toml")
SOURCE = "a choice of this project: packager/quality/retrieval_limits.toml"


@dataclass(frozen=True, slots=True)
class RetrievalLimits:
    """Cosines and shares at least, the difference of scores at most."""

    cosine_mean: float
    cosine_p5: float
    cosine_min: float
    score_mean: float
    order_kept: float
    top1_kept: float


def limits(grade: str | None, file: Path = FILE) -> RetrievalLimits | None:
    """The limits of a class; None where nobody has set any."""
    return read_classes(file, RetrievalLimits).get(grade or "")


def grades(file: Path = FILE) -> tuple[str, ...]:
    """The classes that have limits, strictest first."""
    return tuple(read_classes(file, RetrievalLimits))
