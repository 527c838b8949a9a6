"""The elementary functions of the network, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """Every row (last axis) divided by its root mean square, times `weight`."""
    mean = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    return np.asarray(x / np.sqrt(mean + np.float32(eps)) * weight)


def unit(x: Floats, eps: float) -> Floats:
    """Every row (last axis) at length one; rows of zeros stay zero."""
    return np.asarray(x / np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True) + np.float32(eps)))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)); a tanh does not overflow where an exponential does."""
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5, dtype=np.float32)


def silu(x: Floats) -> Floats:
    """x times its sigmoid."""
    return x * sigmoid(x)


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.logaddexp(x, np.float32(0)))


def softmax(x: Floats) -> Floats:
    """Along the last axis; overwrites `x`."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def log_softmax(x: Floats) -> Floats:
    """Along the last axis; overwrites `x`."""
    x -= x.max(axis=-1, keepdims=True)
    # Pairwise sums over 150,000 terms in float32 are exact to six digits, and the logarithm keeps
    # them.
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x
