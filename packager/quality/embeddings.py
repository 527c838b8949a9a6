"""Embeddings of an encoder beside the unquantized ones: cosines token by token, and the rows that
judge them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from packager.quality.picture_limits import PictureLimits
from packager.records import QualityVerdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.checkpoint.header import TensorInfo

RULES = ("cosine_mean", "cosine_min")


class Compared(Protocol):
    """Figures as packager.records.quality keeps them."""

    @property
    def broken(self) -> int | None:
        """Vectors with what is not a number."""

    @property
    def cosine_mean(self) -> float | None:
        """Over all tokens."""

    @property
    def cosine_min(self) -> float | None:
        """Of the worst token."""


class Cosines:
    """Collects them over pictures or sounds."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []
        self._broken = 0

    def add(
        self,
        ours: NDArray[np.float32],
        theirs: NDArray[np.float32],
        common: NDArray[np.float32] | None = None,
    ) -> None:
        """Both (tokens, width); `common` is taken off both: what all tokens have in common says
        nothing of them, and would hide a loss."""
        import numpy as np

        if ours.shape != theirs.shape:
            # Tokens that are missing are lost whole.
            self._parts.append(np.zeros(len(theirs), np.float32))
            return
        if common is not None:
            ours, theirs = ours - common, theirs - common
        good = np.isfinite(ours).all(-1)
        self._broken += int((~good).sum())
        norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        with np.errstate(all="ignore"):
            cosine = (ours * theirs).sum(-1) / norms
        self._parts.append(np.where(good & (norms > 0), cosine, 0).astype(np.float32))

    def figures(self) -> tuple[int, int, float, float]:
        """Tokens, broken ones among them, the mean cosine and the least."""
        import numpy as np

        every = np.concatenate(self._parts)
        return len(every), self._broken, float(every.mean()), float(every.min())


def rows(found: Compared, limits: PictureLimits, kind: str) -> tuple[QualityVerdict, ...]:
    """One row per limit, named after `kind` (image, audio); a vector that is not a number misses
    all of them."""
    verdicts = []
    for rule in RULES:
        limit, measured = getattr(limits, rule), getattr(found, rule)
        passed = not found.broken and measured is not None and measured >= limit
        verdicts.append(
            QualityVerdict(
                rule=f"{kind}_{rule}", limit=limit, measured=measured, at_least=True, passed=passed
            )
        )
    return tuple(verdicts)


def weights_of(
    tensors: Mapping[str, TensorInfo], prefix: str
) -> Callable[[str], NDArray[np.float32]]:
    """The unquantized weights of an encoder by their names behind `prefix`, of those outside it by
    their whole names."""
    # Late: numpy, for the child that computes.
    from packager.checkpoint.numbers import rows_of

    def weights(name: str) -> NDArray[np.float32]:
        tensor = tensors[prefix + name] if prefix + name in tensors else tensors[name]
        return rows_of(tensor).rows(0, math.prod(tensor.shape[:-1])).reshape(tensor.shape)

    return weights
