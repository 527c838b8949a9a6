"""Two answers that one model gives by different kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_CLOSE = 0.02
"""Nats. A processor computes several tokens at once by other instructions than one alone, so that
two tokens that are as likely may change places; what is wrong lies further apart."""


def differ_by_rounding(
    session: Any, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]
) -> bool:
    """Whether two answers part at two tokens that are as likely for the model; False for the same
    answers."""
    parted = next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None
    )
    if parted is None:
        return False
    ids = [*prompt, *one[:parted]]
    last = np.concatenate([np.array(block) for block in session.logits(ids)])[-1]
    return bool(abs(float(last[one[parted]] - last[other[parted]])) < _CLOSE)
