"""Several models side by side on one device: an embedder, a reranker and a chat model in its
memory at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from packager.select.candidate import Candidate


def together(parts: Sequence[Sequence[Candidate]], room: int) -> tuple[Candidate, ...] | None:
    """Of each part one candidate that passes by itself, whose peaks of memory together are at most
    `room` bytes; None where no choice of them fits.

    `parts` list their candidates best first, as `candidates` does. Of all choices that fit, the one
    is taken that leaves the fewest better ones aside, the parts alike; then the one of less memory.
    """
    fronts = [_front([candidate for candidate in part if candidate.passes]) for part in parts]
    fitting = (
        choice
        for choice in product(*(enumerate(front) for front in fronts))
        if sum(candidate.footprint.peak for _, candidate in choice) <= room
    )
    best = min(
        fitting,
        key=lambda choice: (
            sum(place for place, _ in choice),
            sum(candidate.footprint.peak for _, candidate in choice),
        ),
        default=None,
    )
    return None if best is None else tuple(candidate for _, candidate in best)


def least(parts: Sequence[Sequence[Candidate]]) -> int | None:
    """Bytes of the smallest choice; None where a part has nothing that passes by itself."""
    smallest = [
        min((candidate.footprint.peak for candidate in part if candidate.passes), default=None)
        for part in parts
    ]
    known = [size for size in smallest if size is not None]
    return sum(known) if len(known) == len(smallest) else None


def _front(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that take less memory than every better one."""
    front: list[Candidate] = []
    for candidate in ranked:
        if not front or candidate.footprint.peak < front[-1].footprint.peak:
            front.append(candidate)
    return front
