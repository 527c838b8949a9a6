"""Rotary positions: the frequencies that a config.json asks for, and turning queries and keys by
them.

Source: modeling_rope_utils.py of transformers 5.5; YaRN is arXiv 2309.00071.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from packager.errors import bad_input
from packager.reference.arithmetic import Floats
from packager.shape import Shape

_PLAIN = ("default", "mrope")
"""Text has the same position in all three axes of mrope, which then turns as if there were one."""


class Rope:
    """Turns the first `width` elements of every head. `config` is the text decoder's own table of
    config.json."""

    def __init__(self, shape: Shape, config: Mapping[str, Any], where: str) -> None:
        scaling = _scaling(config)
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        factor = scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor")
        self.width = int(shape.head_dim * (factor or (0.25 if shape.hybrid else 1.0)))
        powers = np.arange(0, self.width, 2, dtype=np.float32) / np.float32(self.width)
        frequencies = (1.0 / np.float32(shape.rope_theta) ** powers).astype(np.float32)
        self.amplitude = 1.0
        if kind == "linear":
            frequencies = frequencies / np.float32(scaling["factor"])
        elif kind == "yarn":
            frequencies, self.amplitude = self._yarn(frequencies, scaling, shape)
        elif kind not in _PLAIN:
            raise bad_input(
                f"{where}: the rope type {kind!r} is not known here.",
                "Known: default, linear, yarn.",
            )
        self.frequencies: Floats = frequencies

    def table(self, length: int) -> tuple[Floats, Floats]:
        """Cosine and sine for the positions from 0, (length, width / 2)."""
        angles = np.arange(length, dtype=np.float32)[:, None] * self.frequencies
        return np.cos(angles) * np.float32(self.amplitude), np.sin(angles) * np.float32(
            self.amplitude
        )

    def turn(self, heads: Floats, cosine: Floats, sine: Floats) -> Floats:
        """`heads` (positions, heads, head width), turned: element i with element i + width / 2."""
        half = self.width // 2
        first, second = heads[..., :half], heads[..., half : self.width]
        cosine, sine = cosine[:, None], sine[:, None]
        return np.concatenate(
            [
                first * cosine - second * sine,
                second * cosine + first * sine,
                heads[..., self.width :],
            ],
            axis=-1,
        )

    def _yarn(
        self, frequencies: Floats, scaling: Mapping[str, Any], shape: Shape
    ) -> tuple[Floats, float]:
        factor = float(scaling["factor"])
        original = scaling.get("original_max_position_embeddings") or shape.context
        fast, slow = scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1

        def dimension(rotations: float) -> float:
            return (
                self.width
                * math.log(original / (rotations * 2 * math.pi))
                / (2 * math.log(shape.rope_theta))
            )

        low, high = dimension(fast), dimension(slow)
        if scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.width - 1)
        if low == high:
            high += 0.001
        # Fast dimensions keep their frequency, slow ones are stretched by the factor, those between
        # by a part of it.
        stretched = np.clip(
            (np.arange(self.width // 2, dtype=np.float32) - low) / (high - low), 0, 1
        )
        mixed = frequencies / np.float32(factor) * stretched + frequencies * (1 - stretched)
        return mixed.astype(np.float32), _amplitude(scaling, factor)


def _amplitude(scaling: Mapping[str, Any], factor: float) -> float:
    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return scale(scaling["mscale"]) / scale(scaling["mscale_all_dim"])
    return scale(1.0)


def _scaling(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers 4 writes rope_scaling, transformers 5 rope_parameters; where both are there, the
    first one counts."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return {key: value for key, value in found.items() if value is not None}
