"""Whether a measurement can be believed: measured again while the machine is busy, said where it
stayed so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from packager.errors import usage
from packager.measure.gauges.load import Mark

Figures = TypeVar("Figures")

# What others may have of the cores, and how far the middle half of the trials may lie apart, before
# a median moves further than five per cent, by which the runs of an idle machine should agree;
# docs/measurements/harness.md has what was seen.
BUSY_CORES = 0.15
WIDE_SPREAD = 0.08

_ATTEMPTS = 3
_MOST_ATTEMPTS = 10
_WAIT_S = 5.0
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Figures]):
    """One pass over a part of the measurement: its figures, what others had of the cores, and how
    far its trials lie apart."""

    figures: Figures
    others: float | None
    spread: float

    @property
    def disorder(self) -> float:
        """How far beyond the limits it is: 1 is just noisy, 0 is perfect."""
        return max((self.others or 0.0) / BUSY_CORES, self.spread / WIDE_SPREAD)

    @property
    def noisy(self) -> bool:
        """Whether it is not to be believed."""
        return self.disorder > 1

    def why(self, what: str) -> list[str]:
        """The reasons in words, none where it is clean."""
        reasons = []
        if (self.others or 0.0) > BUSY_CORES:
            reasons.append(f"{what}: other processes used {self.others:.1f} cores")
        if self.spread > WIDE_SPREAD:
            reasons.append(f"{what}: the results varied by {self.spread:.0%}")
        return reasons


def allowed_attempts() -> int:
    """How often a noisy part is measured at most: QWEN_PACK_ATTEMPTS, or 3. Raises PackError
    (usage) for what is not a number from 1 to 10.

    A machine that is always busy, as a builder of many projects is, only loses time with more than
    one.
    """
    chosen = os.environ.get("QWEN_PACK_ATTEMPTS", "").strip()
    if not chosen:
        return _ATTEMPTS
    if not (chosen.isascii() and chosen.isdigit() and 1 <= int(chosen[:3]) <= _MOST_ATTEMPTS):
        raise usage(
            f"QWEN_PACK_ATTEMPTS is {chosen!r}.",
            f"Give a whole number from 1 to {_MOST_ATTEMPTS}, or leave it out for {_ATTEMPTS}.",
        )
    return int(chosen)


def calm(
    measure: Callable[[], tuple[Figures, float]],
    attempts: int,
    on_again: Callable[[str], None] = lambda why: None,
    present: Callable[[], Mark] | None = None,
) -> list[Attempt[Figures]]:
    """Measure until an attempt is clean, `attempts` times at most; the best-behaved attempt first,
    the others in their order.

    `measure` returns figures and their spread; `present` marks the time on the machine that is
    measured, this one by default. Between two attempts the machine gets as long as the
    last one took, five seconds at most, to calm down; a third is begun only within the first
    minute.
    """
    seen: list[Attempt[Figures]] = []
    began = time.monotonic()
    while True:
        mark, started = (present or Mark.now)(), time.monotonic()
        figures, spread = measure()
        seen.append(Attempt(figures, mark.cores_since(), spread))
        now = time.monotonic()
        if (
            not seen[-1].noisy
            or len(seen) >= attempts
            or (len(seen) > 1 and now - began > _PATIENCE_S)
        ):
            break
        on_again("; ".join(seen[-1].why("noisy")) + ": measuring again")
        time.sleep(min(_WAIT_S, now - started))
    best = min(seen, key=lambda attempt: attempt.disorder)
    return [best, *(attempt for attempt in seen if attempt is not best)]


@dataclass(frozen=True, slots=True)
class Noise:
    """What all parts of a measurement together say of how far it can be believed."""

    noisy: bool
    because: tuple[str, ...]
    others: float | None
    attempts: dict[str, int]


def verdict(parts: dict[str, list[Attempt[Any]]]) -> Noise:
    """Whether any part is noisy with the reasons, what other processes used of the cores at most,
    and how many attempts each part took."""
    kept = {name: attempts[0] for name, attempts in parts.items() if attempts}
    others = [attempt.others for attempt in kept.values() if attempt.others is not None]
    return Noise(
        any(attempt.noisy for attempt in kept.values()),
        tuple(reason for name, attempt in kept.items() for reason in attempt.why(name)),
        max(others) if others else None,
        {name: len(attempts) for name, attempts in parts.items() if attempts},
    )
