"""Published benchmark scores, read only when somebody asks for one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.catalog.variant import Variant


@dataclass(frozen=True, slots=True)
class Score:
    """One published score of the unquantized checkpoint.

    `protocol` says how it was measured where a source does (shots, split, variant of the benchmark): scores of different
    protocols do not compare. `mode` is "thinking" or "non-thinking", None for models without the switch.
    """

    benchmark: str
    value: float
    protocol: str | None
    mode: str | None
    source: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form, one key per field."""
        return asdict(self)


@cache
def _table() -> dict[str, tuple[Score, ...]]:
    return {}


def scores(repo_id: str) -> tuple[Score, ...]:
    """The scores of one checkpoint, in the order in which they were published; empty where there are none."""
    return _table().get(repo_id, ())


def score_of(variant: Variant, benchmark: str, mode: str | None = None) -> Score | None:
    """The variant's own score in a benchmark, case aside; in that mode, or in whichever was published first. None without one."""
    for score in scores(variant.repo_id):
        if score.benchmark.casefold() == benchmark.casefold() and mode in (None, score.mode):
            return score
    return None
