"""Several models side by side on one device: an embedder, a reranker and a chat model in its
memory at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from packager.select.candidate import Candidate


def together(
    parts: Sequence[Sequence[Candidate]], room: int, beside: int | None = None
) -> tuple[Candidate, ...] | None:
    """Of each part one candidate that passes by itself, whose peaks of memory together are at most
    `room` bytes, of each GPU where there are several; None where no choice of them fits. `beside`
    is what the system's memory has for what GPUs leave there, None for no such limit.

    `parts` list their candidates best first, as `candidates` does. Of all choices that fit, the one
    is taken that leaves the fewest better ones aside, the parts alike; then the one of less memory.
    """
    fronts = [_front([candidate for candidate in part if candidate.passes]) for part in parts]
    fitting = (
        choice
        for choice in product(*(enumerate(front) for front in fronts))
        if sum(candidate.load for _, candidate in choice) <= room
        and (beside is None or sum(candidate.beside for _, candidate in choice) <= beside)
    )
    best = min(
        fitting,
        key=lambda choice: (
            sum(place for place, _ in choice),
            sum(candidate.load for _, candidate in choice),
        ),
        default=None,
    )
    return None if best is None else tuple(candidate for _, candidate in best)


def least(parts: Sequence[Sequence[Candidate]]) -> int | None:
    """Bytes of the smallest choice; None where a part has nothing that passes by itself."""
    smallest = [
        min((candidate.load for candidate in part if candidate.passes), default=None)
        for part in parts
    ]
    known = [size for size in smallest if size is not None]
    return sum(known) if len(known) == len(smallest) else None


def _front(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that take less memory than every better one."""
    front: list[Candidate] = []
    for candidate in ranked:
        if not front or candidate.load < front[-1].load:
            front.append(candidate)
    return front
