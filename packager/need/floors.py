"""The least published scores that a use case or a language asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Floor:
    """Least published scores: the first benchmark of `any_of` that a variant has a score of
    decides."""

    any_of: tuple[tuple[str, float], ...]
    reason: str
    source: str
