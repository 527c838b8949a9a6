"""The next variant down and up from the chosen one, and what each costs and gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packager.json_values import JsonObject
from packager.select.candidate import Candidate
from packager.select.preference import recipe_order

_SAME_SIZE = 0.15
"""Difference of parameters up to which two variants are of one size."""
_OUT_OF_THE_QUESTION = frozenset({"tuning", "modality", "runtime", "licence"})


@dataclass(frozen=True, slots=True)
class Step:
    """A neighbour of the chosen candidate; differences are the neighbour's figures less the chosen
    one's."""

    direction: str
    candidate: Candidate
    memory_bytes: int
    artifact_bytes: int
    decode_tps: float
    ttft_ms: float
    scores: dict[str, float]

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "direction": self.direction,
            "candidate": self.candidate.as_dict(),
            "difference": {
                "memory_bytes": self.memory_bytes,
                "artifact_bytes": self.artifact_bytes,
                "decode_tps": round(self.decode_tps, 3),
                "ttft_ms": round(self.ttft_ms, 3),
                "scores": self.scores,
            },
        }


def steps(judged: Sequence[Candidate]) -> tuple[Step, ...]:
    """At most two steps, down and up, by peak memory, from the chosen one of `found`; none where
    nothing was chosen.

    Each other variant that serves the use case stands with its best recipe in the chosen one's
    runtime, whether it passes (first) or not: a step down that fails a floor says what the smaller
    variant lacks. A step up takes more memory and has a higher quality, or passes where scores are
    not published; a step down takes less.
    """
    if not judged or judged[0].verdict != "chosen":
        return ()
    chosen = judged[0]
    neighbours = _one_each(judged, chosen)
    size = chosen.footprint.peak
    neighbours = [neighbour for neighbour in neighbours if not _older_sibling(neighbour, chosen)]
    smaller = [neighbour for neighbour in neighbours if neighbour.footprint.peak < size]
    larger = [
        neighbour
        for neighbour in neighbours
        if neighbour.footprint.peak > size and _better(neighbour, chosen)
    ]
    down = max(
        smaller,
        key=lambda neighbour: (
            neighbour.passes,
            neighbour.footprint.peak,
            neighbour.variant.repo_id,
        ),
        default=None,
    )
    up = min(
        larger,
        key=lambda neighbour: (
            not neighbour.passes,
            neighbour.footprint.peak,
            neighbour.variant.repo_id,
        ),
        default=None,
    )
    return tuple(
        _step(name, neighbour, chosen)
        for name, neighbour in (("down", down), ("up", up))
        if neighbour is not None
    )


def _one_each(judged: Sequence[Candidate], chosen: Candidate) -> list[Candidate]:
    best: dict[str, Candidate] = {}
    for candidate in judged:
        name = candidate.variant.repo_id
        if (
            name == chosen.variant.repo_id
            or candidate.runtime != chosen.runtime
            or not candidate.sized
        ):
            continue
        if _OUT_OF_THE_QUESTION & {reason.rule for reason in candidate.reasons}:
            continue
        kept = best.get(name)
        if kept is None or (not candidate.passes, recipe_order(candidate)) < (
            not kept.passes,
            recipe_order(kept),
        ):
            best[name] = candidate
    return list(best.values())


def _older_sibling(neighbour: Candidate, chosen: Candidate) -> bool:
    """Whether it was released before the chosen one and is about as large: nobody steps there."""
    ours, theirs = chosen.variant, neighbour.variant
    if not (
        ours.release_date and theirs.release_date and ours.params_total and theirs.params_total
    ):
        return False
    return (
        theirs.release_date < ours.release_date
        and abs(theirs.params_total / ours.params_total - 1) <= _SAME_SIZE
    )


def _better(neighbour: Candidate, chosen: Candidate) -> bool:
    if neighbour.quality is None or chosen.quality is None:
        return neighbour.passes
    return neighbour.quality > chosen.quality


def _step(direction: str, neighbour: Candidate, chosen: Candidate) -> Step:
    shared = [name for name in neighbour.scores if name in chosen.scores]
    return Step(
        direction=direction,
        candidate=neighbour,
        memory_bytes=neighbour.footprint.peak - chosen.footprint.peak,
        artifact_bytes=neighbour.artifact_bytes - chosen.artifact_bytes,
        decode_tps=neighbour.forecast.decode_tps - chosen.forecast.decode_tps,
        ttft_ms=neighbour.forecast.ttft_ms - chosen.forecast.ttft_ms,
        scores={name: round(neighbour.scores[name] - chosen.scores[name], 2) for name in shared},
    )
