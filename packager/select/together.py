"""Several models side by side on one device: an embedder, a reranker and a chat model in its
memory at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    # Part by part, for every number of better ones left aside only what no other choice beats: all
    # choices of a dozen parts are more than can be looked at.
    ways: dict[int, list[_Way]] = {0: [_Way(0, 0, ())]}
    for front in fronts:
        wider: dict[int, list[_Way]] = {}
        for aside, rows in ways.items():
            for place, candidate in enumerate(front):
                longer = (row.with_one(place, candidate) for row in rows)
                wider.setdefault(aside + place, []).extend(
                    row
                    for row in longer
                    if row.load <= room and (beside is None or row.beside <= beside)
                )
        ways = {aside: _unbeaten(rows, beside is None) for aside, rows in wider.items() if rows}
    if not ways:
        return None
    best = min(ways[min(ways)], key=lambda row: (row.load, row.places))
    return tuple(front[place] for front, place in zip(fronts, best.places, strict=True))


class _Way(NamedTuple):
    """A choice of the first parts: bytes of both memories, and the place of each in its front."""

    load: int
    beside: int
    places: tuple[int, ...]

    def with_one(self, place: int, candidate: Candidate) -> _Way:
        """The same with one of the next part."""
        return _Way(
            self.load + candidate.load, self.beside + candidate.beside, (*self.places, place)
        )


def _unbeaten(rows: list[_Way], one_memory: bool) -> list[_Way]:
    """Those that take less of one memory than every other that takes no more of the other."""
    kept: list[_Way] = []
    for row in sorted(rows):
        if not kept or (not one_memory and row.beside < kept[-1].beside):
            kept.append(row)
    return kept


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
