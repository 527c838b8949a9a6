"""How far a quantized model's next-token distributions lie from the unquantized model's, token by
token, and in sum.

Everything is natural: divergence in nats, perplexity as exp of the mean negative log-probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from packager.cores import cores

Floats = NDArray[np.float32]
_ROWS = 16
"""Tokens that one thread compares at once: each of its arrays has 10 MB for a vocabulary of
151,936."""

_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over `tokens` predictions.

    `kl_*`: Kullback-Leibler divergence from the reference to the model; `kl_error` is the standard
    error of its mean, NaN for one prediction. `top1`: share of
    predictions whose likeliest token is the reference's. `perplexity` of the text under the model,
    `reference_perplexity` under the reference. A prediction that is no distribution (NaN or
    infinite logits) counts in `broken` and in nothing else; with none left all are NaN.
    """

    tokens: int
    broken: int
    kl_mean: float
    kl_p95: float
    kl_p99: float
    kl_max: float
    kl_error: float
    top1: float
    perplexity: float
    reference_perplexity: float

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity as a multiple of the reference's."""
        return self.perplexity / self.reference_perplexity

    def as_dict(self) -> dict[str, float | int | None]:
        """JSON form; what is not finite is null, as JSON has no word for it."""
        names = (
            "kl_mean",
            "kl_p95",
            "kl_p99",
            "kl_max",
            "kl_error",
            "top1",
            "perplexity",
            "reference_perplexity",
            "perplexity_ratio",
        )
        values = {name: float(getattr(self, name)) for name in names}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {"tokens": self.tokens, "broken": self.broken, **finite}


@dataclass
class Comparison:
    """Collects predictions of one text: divergence, agreement and both models' negative
    log-probability of the true token."""

    divergence: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    surprise: list[float] = field(default_factory=list)
    reference_surprise: list[float] = field(default_factory=list)
    broken: int = 0

    def add(self, reference: Floats, logits: Floats, targets: Sequence[int]) -> None:
        """Compare neighbouring predictions.

        `reference` and `logits` are (tokens, vocabulary) of logits or log-probabilities, one row
        per entry of `targets`, the tokens that really follow. Columns of `logits` beyond the
        reference's vocabulary are padding. Raises ValueError where the shapes do not agree.
        """
        if (
            len(reference) != len(logits)
            or len(logits) != len(targets)
            or logits.shape[1] < reference.shape[1]
        ):
            raise ValueError(
                f"{reference.shape} and {logits.shape} and {len(targets)} targets do not agree"
            )
        cuts = [slice(start, start + _ROWS) for start in range(0, len(targets), _ROWS)]
        following = np.asarray(targets, dtype=np.int64)
        # numpy lets other threads run while it computes.
        with ThreadPoolExecutor(min(_MOST_THREADS, cores().at_once)) as threads:
            for part in threads.map(
                lambda rows: _compared(
                    reference[rows], logits[rows, : reference.shape[1]], following[rows]
                ),
                cuts,
            ):
                self.extend(part)

    def extend(self, other: Comparison) -> None:
        """Add all that another one has collected."""
        self.divergence += other.divergence
        self.same += other.same
        self.surprise += other.surprise
        self.reference_surprise += other.reference_surprise
        self.broken += other.broken

    def figures(self) -> Figures:
        """The sums."""
        count = len(self.divergence)
        if not count:
            return Figures(self.broken, self.broken, *[math.nan] * 8)
        divergence = np.asarray(self.divergence)
        return Figures(
            tokens=count + self.broken,
            broken=self.broken,
            kl_mean=float(divergence.mean()),
            kl_p95=float(np.quantile(divergence, 0.95)),
            kl_p99=float(np.quantile(divergence, 0.99)),
            kl_max=float(divergence.max()),
            kl_error=float(divergence.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan,
            top1=sum(self.same) / count,
            perplexity=_exp(sum(self.surprise) / count),
            reference_perplexity=_exp(sum(self.reference_surprise) / count),
        )


def _compared(reference: Floats, logits: Floats, targets: NDArray[np.int64]) -> Comparison:
    sound = np.isfinite(logits).all(axis=1)
    wanted, got = log_softmax(reference[sound]), log_softmax(logits[sound])
    rows, targets = np.arange(len(got)), targets[sound]
    apart = wanted - got
    apart *= np.exp(wanted)
    return Comparison(
        # What is nearly equal comes out a rounding error below zero.
        np.maximum(apart.sum(axis=1, dtype=np.float64), 0.0).tolist(),
        (wanted.argmax(axis=1) == got.argmax(axis=1)).tolist(),
        (-got[rows, targets]).tolist(),
        (-wanted[rows, targets]).tolist(),
        int((~sound).sum()),
    )


def log_softmax(logits: Floats) -> Floats:
    """Natural log-probabilities of every row.

    float32 with sums in float64: within 1e-6 of exact where the logits are within 30 of the highest
    one, a third of the time of float64.
    """
    shifted: Floats = logits - (logits.max(axis=1, keepdims=True) if len(logits) else np.float32(0))
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)).astype(
        np.float32
    )
    return shifted


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
