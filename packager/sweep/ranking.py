"""Who goes on at a rung of pruning: the sum of places by several objectives decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from packager.sweep.plan_schema import OBJECTIVES
from packager.units import human_bytes

_BETTER = {"quality": 1, "memory": -1, "size": -1, "speed": 1}
assert set(_BETTER) == set(OBJECTIVES)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of those compared: its place from 1, its place by each objective that counted, and the
    sentence that says so."""

    id: str
    place: int
    places: Mapping[str, int]
    why: str


def goes_on(count: int, keep: int) -> int:
    """How many of `count` go on from a rung that is not the last: the better half, never fewer than
    are kept in the end."""
    return max(keep, ceil(count / 2))


def counted(by: Sequence[str], values: Sequence[Mapping[str, float | None]]) -> list[str]:
    """The objectives of which every one has a value; without a value nothing can be ranked by
    it."""
    return [name for name in by if all(row.get(name) is not None for row in values)]


def ranked(
    ids: Sequence[str],
    values: Sequence[Mapping[str, float | None]],
    by: Sequence[str],
    behind: Collection[str] = (),
) -> list[Ranked]:
    """All of them, best first: by the sum of their places, ties by the name; those `behind` after
    all others.

    The place by an objective is one more than how many are strictly better, so that what another
    one beats on every objective never stands before it.
    """
    places: list[dict[str, int]] = [{} for _ in ids]
    for name in by:
        known = [_BETTER[name] * (row[name] or 0.0) for row in values]
        order = sorted(known, reverse=True)
        first = {value: place for place, value in reversed(list(enumerate(order, 1)))}
        for at, value in enumerate(known):
            places[at][name] = first[value]
    rows = sorted(
        range(len(ids)), key=lambda at: (ids[at] in behind, sum(places[at].values()), ids[at])
    )
    return [
        Ranked(ids[at], place, places[at], _why(values[at], places[at]))
        for place, at in enumerate(rows, 1)
    ]


def _why(values: Mapping[str, float | None], places: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} {_shown(name, values[name] or 0.0)} is number {place}"
        for name, place in places.items()
    )


def _shown(name: str, value: float) -> str:
    if name in ("memory", "size"):
        return human_bytes(value)
    if name == "speed":
        return f"{value:.1f} tok/s"
    # A divergence counts downwards; scores go up to 100.
    return f"{-value:.4f} nats" if value <= 0 else f"{value:.1f}"
