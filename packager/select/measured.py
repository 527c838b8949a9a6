"""Which of several artifacts of one variant is kept: the workload's own preference, by what was
measured of them.

* smallest: the least peak memory. * speed: the highest decode rate. * quality: the least divergence
from the unquantized model where it was measured of all, else the most bits per weight, from 8 on
all alike. * balanced: of the Pareto front of quality, decode rate and peak memory the point nearest
to the best of all three, as in `preference`.

Ties: quality, decode rate, peak memory, then the order in which they were named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from packager.need.workload import Preference
from packager.select.preference import LOSSLESS_BITS, knee, pareto_front


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of one artifact: peak bytes, tokens per second, mean divergence in nats
    (None where it was not measured).

    `missed` says that it does not keep an enforced budget.
    """

    peak_bytes: float
    decode_tps: float
    bits_per_weight: float
    divergence: float | None = None
    missed: bool = False


def best(seen_rows: Sequence[Seen], prefer: Preference) -> int:
    """The place of the best one. Whatever misses an enforced budget stands behind all that do
    not."""
    places = [place for place, seen in enumerate(seen_rows) if not seen.missed] or list(
        range(len(seen_rows))
    )
    pool = [seen_rows[place] for place in places]
    axes = _axes(pool)
    if prefer == "balanced":
        front = set(pareto_front(axes))
        distances = knee(axes, sorted(front))
        first = [
            (point not in front, round(distance, 9))
            for point, distance in zip(axes, distances, strict=True)
        ]
    else:
        which = {"quality": 0, "speed": 1, "cost": 1, "smallest": 2}[prefer]
        first = [(False, -point[which]) for point in axes]
    order = sorted(range(len(pool)), key=lambda at: (first[at], [-value for value in axes[at]], at))
    return places[order[0]]


def _axes(pool: Sequence[Seen]) -> list[tuple[float, float, float]]:
    """Quality, decode rate and saving of memory of each, the more the better; rates and bytes on
    logarithmic scales."""
    known = all(seen.divergence is not None for seen in pool)
    return [
        (
            -(seen.divergence or 0.0) if known else min(seen.bits_per_weight, LOSSLESS_BITS),
            log(max(seen.decode_tps, 1e-9)),
            -log(max(seen.peak_bytes, 1.0)),
        )
        for seen in pool
    ]
