"""Two answers that one model gives by different kernels."""

from __future__ import annotations

from collections.abc import Sequence

from packager.measure.parting import Steps, parting


def differ_by_rounding(
    session: Steps, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int]
) -> bool:
    """Whether two answers part at a tie; False for the same answers."""
    parted = parting(session, prompt, plain, other)
    return parted is not None and parted.tie
