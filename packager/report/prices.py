"""What an answer costs: from a price per hour of the machine, or from the power that it takes and a
price of energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.errors import usage

if TYPE_CHECKING:
    from packager.records import Behaviour, Measurement

_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Prices:
    """In whatever currency they are given: of an hour of the machine, of a kilowatt-hour; `watts`
    is what the machine takes at work.

    Without `watts` the energy is the one that was measured, where the machine tells it.
    """

    per_hour: float | None = None
    watts: float | None = None
    per_kwh: float | None = None

    def __post_init__(self) -> None:
        for flag, value in (
            ("--price-per-hour", self.per_hour),
            ("--watts", self.watts),
            ("--price-per-kwh", self.per_kwh),
        ):
            if value is not None and not 0 <= value < math.inf:
                raise usage(f"{flag} {value} is not a valid amount.", "Give a number from 0 on.")
        if self.watts is not None and self.per_kwh is None:
            raise usage("--watts without a price of energy makes no cost.", "Add --price-per-kwh.")

    @property
    def given(self) -> bool:
        """Whether there is any price."""
        return self.per_hour is not None or self.per_kwh is not None

    @property
    def of_an_hour(self) -> float | None:
        """Of an hour at work, where it takes no measurement to tell: the machine's price and the
        energy of `watts`."""
        if not self.given or (self.per_kwh is not None and self.watts is None):
            return None
        return (self.per_hour or 0) + (self.watts or 0) / 1000 * (self.per_kwh or 0)

    def per_million_tokens(self, measured: Measurement | None) -> float | None:
        """Of a million tokens of answers at the measured decode rate, one answer at a time; None
        where that is not known."""
        rate = measured.decode_tps if measured else None
        return self._cost(1e6 / rate, measured, 1e6, 0) if rate else None

    def per_successful_task(
        self, behaviour: Behaviour | None, measured: Measurement | None
    ) -> float | None:
        """Of a task of the behaviour set that was passed: the time that the whole set took,
        failures too, shared among the successes."""
        if behaviour is None or not behaviour.passed or behaviour.seconds is None:
            return None
        new, read = behaviour.new_tokens or 0, behaviour.prompt_tokens or 0
        whole = self._cost(behaviour.seconds, measured, new, read)
        return None if whole is None else whole / behaviour.passed

    def _cost(
        self, seconds: float, measured: Measurement | None, new: float, read: float
    ) -> float | None:
        if not self.given:
            return None
        cost = (self.per_hour or 0) * seconds / 3600
        if self.per_kwh is None:
            return cost
        joules = self.watts * seconds if self.watts is not None else _joules(measured, new, read)
        return None if joules is None else cost + joules / _JOULES_PER_KWH * self.per_kwh


def _joules(measured: Measurement | None, new: float, read: float) -> float | None:
    """The energy of so many tokens decoded and read, from what the benchmark measured for one token
    and for one prompt."""
    energy = measured.energy if measured else None
    if measured is None or energy is None or energy.joules_per_token is None:
        return None
    decoded = energy.joules_per_token * new
    if not read:
        return decoded
    if energy.joules_per_prompt is None or not measured.prompt_tokens:
        return None
    return decoded + energy.joules_per_prompt * read / measured.prompt_tokens
