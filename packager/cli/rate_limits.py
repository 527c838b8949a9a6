"""What a day's tokens and the cost of a million ask of the rate, and the same limits said again for
a rate that there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from packager.select.misses import Miss

_OWN = "--min-decode-tps"


class RateLimit(NamedTuple):
    """A flag that is a rate: `rate` is what it asks of all sequences together."""

    flag: str
    rate: float
    asked: float
    is_cost: bool

    def at(self, rate: float) -> str:
        """The flag with the number that this rate meets."""
        if not self.is_cost:
            return f"{self.flag} {floor(self.asked * rate / self.rate)}"
        cost = self.asked * self.rate / rate
        digits = 2 - floor(log10(cost))
        return f"{self.flag} {ceil(cost * 10**digits) / 10**digits:g}"


def rate_limits(
    tokens_per_day: float | None, max_cost: float | None, hour: float | None
) -> tuple[RateLimit, ...]:
    """Those that were given; `hour` is what one of the machine costs."""

    def given() -> Iterator[RateLimit]:
        if tokens_per_day:
            yield RateLimit("--tokens-per-day", tokens_per_day / 86400, tokens_per_day, False)
        if max_cost and hour:
            yield RateLimit("--max-cost-per-million", hour / 3600 * 1e6 / max_cost, max_cost, True)

    return tuple(given())


def per_sequence(limits: Sequence[RateLimit], parallel: int) -> float:
    """Tokens a second that the limits ask of each sequence, with two decimals; 0 without limits."""
    each = max((limit.rate for limit in limits), default=0.0) / parallel
    # The day's tokens of a rate with two decimals ask for this rate, and not for a hundredth more.
    return ceil(round(each * 100, 6)) / 100


def in_own_words(
    misses: Sequence[Miss], limits: Sequence[RateLimit], parallel: int, least: float
) -> tuple[Miss, ...]:
    """The misses that a lower rate mends, with the flags that ask for the higher one; `least` is
    what would be asked of each sequence without them."""

    def reworded() -> Iterator[Miss]:
        for miss in misses:
            name, _, number = miss.flag.partition(" ")
            rate = float(number) if name == _OWN else 0.0
            asking = [limit for limit in limits if limit.rate / parallel > rate]
            if name != _OWN or not asking:
                yield miss
                continue
            flags = [limit.at(rate * parallel) for limit in asking]
            if least > rate:
                flags.append(miss.flag)
            names = " and ".join(limit.flag for limit in asking)
            yield replace(miss, change=f"{miss.change} (for {names})", flag=" ".join(flags))

    return tuple(reworded())
