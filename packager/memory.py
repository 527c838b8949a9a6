"""Exact bytes from a shape: the key-value cache and what a footprint is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil

from packager.shape import Shape


@dataclass(frozen=True, slots=True)
class Footprint:
    """Predicted peak resident bytes by component while the model answers a full context.

    `load_peak` is the highest resident size seen on the way there, where loading needs more than running.
    """

    weights: int
    kv_cache: int
    compute: int
    overhead: int
    load_peak: int = 0

    @property
    def total(self) -> int:
        """Bytes resident at once in steady state."""
        return self.weights + self.kv_cache + self.compute + self.overhead

    @property
    def peak(self) -> int:
        """What the device must have: the larger of steady state and load."""
        return max(self.total, self.load_peak)

    def as_dict(self) -> dict[str, int]:
        """The fields of the contract, with the total and the peak."""
        return {**asdict(self), "total": self.total, "peak": self.peak}


def kv_cache_bytes(shape: Shape, context: int, bits: float = 16) -> int:
    """Bytes of keys and values of `context` tokens; only layers with full attention keep them."""
    per_token = 2 * shape.attention_layers * shape.kv_heads * shape.head_dim
    return ceil(per_token * context * bits / 8)
