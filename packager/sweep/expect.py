"""How long the stages of a cell will take: as earlier cells of this folder did, else as published
figures say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Literal

from packager.json_values import JsonObject

STAGES = ("fetch", "convert", "measure", "reference", "quality", "package")
Basis = Literal["measured", "estimated"]
_BILLION = 1e9
_SMALL = 1e6
"""Below so many parameters the fixed costs are all of a stage's time."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds by stage; stages of which nothing is known are absent. `basis` says whether the
    figures are of this folder's own runs."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    basis: Basis = "estimated"

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())

    def without(self, stage: str) -> Expected:
        """The same where another cell does that stage."""
        return replace(self, seconds={k: v for k, v in self.seconds.items() if k != stage})

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {"total": round(self.total, 1), "stages": dict(self.seconds), "basis": self.basis}


class Pace:
    """Seconds per parameter of each stage and runtime, learnt from rows of earlier cells."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[tuple[int, float]]] = {}

    def learn(self, runtime: str, parameters: int, seconds: Mapping[str, float]) -> None:
        """What the stages of one cell took that did not come from the cache."""
        for stage, taken in seconds.items():
            self._seen.setdefault((runtime, stage), []).append((parameters, taken))

    def of(self, runtime: str, parameters: int, random: bool = False) -> Expected:
        """The expected time of a cell. With `random` weights no divergence is computed."""
        seconds: dict[str, float] = {}
        measured = False
        for stage in STAGES:
            if stage == "reference" and random:
                continue
            known = self._seen.get((runtime, stage))
            if known:
                seconds[stage], measured = round(_scaled(known, parameters), 2), True
            elif stage in _rates():
                least, rate = _rates()[stage]
                seconds[stage] = round(max(least, rate * parameters / _BILLION), 2)
        return Expected(seconds, "measured" if measured else "estimated")


def _scaled(known: Iterable[tuple[int, float]], parameters: int) -> float:
    """The median of what the nearest sizes took, in proportion to the parameters."""
    nearest = sorted(known, key=lambda one: abs(one[0] - parameters))[:5]
    return median(taken * max(parameters, _SMALL) / max(size, _SMALL) for size, taken in nearest)


@cache
def _rates() -> Mapping[str, tuple[float, float]]:
    """Of each stage the least seconds, and seconds for 10^9 parameters."""
    data = tomllib.loads(Path(__file__).with_name("rates.toml").read_text(encoding="utf-8"))
    return {name: (row["least"], row["seconds_per_billion"]) for name, row in data.items()}
