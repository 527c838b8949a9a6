"""Rotary positions: the frequencies of a decoder, and turning queries and keys by them.

Source: modeling_rope_utils.py of transformers 5.5; YaRN is arXiv 2309.00071, LongRoPE arXiv
2402.13753.
"""

from __future__ import annotations

import math

import numpy as np

from packager.reference.arithmetic import Floats
from packager.shape.positions import Positions


class Rope:
    """Turns the first `width` elements of every head."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions
        self.width = positions.width

    def table(self, length: int) -> tuple[Floats, Floats]:
        """Cosine and sine for the positions from 0 of a sequence of `length` tokens, (length, width
        / 2)."""
        return table(self._positions, length, length)

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


def table(positions: Positions, rows: int, length: int) -> tuple[Floats, Floats]:
    """Cosine and sine (rows, width / 2) for the first positions of a sequence of `length`
    tokens."""
    angles = np.arange(rows, dtype=np.float32)[:, None] * frequencies(positions, length)
    return turns(positions, np.asarray(angles, np.float32))


def turns(positions: Positions, angles: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of angles (rows, width / 2), with the amplitude of the positions."""
    wide = angles.astype(np.float64)
    # In double precision, so that artifacts do not differ with the processor that they were built
    # on.
    cosine, sine = np.cos(wide) * positions.amplitude, np.sin(wide) * positions.amplitude
    return cosine.astype(np.float32), sine.astype(np.float32)


def frequencies(positions: Positions, length: int = 0) -> Floats:
    """Angle per position of every pair of elements, (width / 2,), in a sequence of `length` tokens.

    The length counts for `dynamic` and `longrope` alone: beyond `positions.fixed_up_to` they turn
    the whole sequence otherwise.
    """
    base = positions.theta
    if positions.kind == "dynamic" and length > positions.context:
        stretched = positions.factor * length / positions.context - (positions.factor - 1)
        base *= stretched ** (positions.width / (positions.width - 2))
    powers = np.arange(0, positions.width, 2, dtype=np.float64) / positions.width
    plain: Floats = np.exp(-math.log(base) * powers).astype(np.float32)
    if positions.kind == "linear":
        return plain / np.float32(positions.factor)
    if positions.kind == "yarn":
        return _yarn(positions, plain)
    if positions.kind == "llama3":
        return _llama3(positions, plain)
    if positions.kind == "longrope":
        divisors = positions.long if length > positions.original else positions.short
        return np.asarray(plain / np.array(divisors), dtype=np.float32)
    return plain


def _yarn(positions: Positions, plain: Floats) -> Floats:
    """Fast pairs keep their frequency, slow ones are stretched by the factor, those between by a
    part of it."""
    width = positions.width

    def pair(turns: float) -> float:
        """The pair that makes so many turns within the original context."""
        return (
            width
            * math.log(positions.original / (turns * 2 * math.pi))
            / (2 * math.log(positions.theta))
        )

    low, high = pair(positions.beta_fast), pair(positions.beta_slow)
    if positions.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        # A ramp of no length would divide by zero.
        high += 0.001
    ramp = np.clip((np.arange(width // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    mixed = plain / np.float32(positions.factor) * ramp + plain * (1 - ramp)
    return np.asarray(mixed, dtype=np.float32)


def _llama3(positions: Positions, plain: Floats) -> Floats:
    """Long waves are stretched by the factor, short ones are kept, those between are mixed."""
    waves = 2 * np.pi / plain
    longest, shortest = positions.original / positions.low, positions.original / positions.high
    stretched = plain / np.float32(positions.factor)
    share = (positions.original / waves - positions.low) / (positions.high - positions.low)
    mixed = (1 - share) * stretched + share * plain
    frequencies = np.where(waves > longest, stretched, np.where(waves < shortest, plain, mixed))
    return np.asarray(frequencies, dtype=np.float32)
