"""Forecast: predicted speed with its range and its confidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Confidence = Literal["measured", "same-class", "estimated"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates in tokens per second, time to first token in milliseconds.

    `low` and `high` bound the decode rate. `confidence` says where the device's bandwidth and
    compute come from: measured here, measured on the same device class, or estimated.
    """

    prefill_tps: float
    decode_tps: float
    ttft_ms: float
    low: float
    high: float
    confidence: Confidence

    def as_dict(self) -> dict[str, float | str]:
        """The fields of the contract."""
        return asdict(self)
