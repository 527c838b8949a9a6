"""Sounds that are made here, for the benchmark and the quality gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.shape.audio import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def made(seconds: int, seed: int = 0) -> NDArray[np.float32]:
    """A sound of voices without words: harmonics of a gliding tone, syllables and breath."""
    import numpy as np

    draw = np.random.default_rng(seed)
    time = np.arange(seconds * RATE) / RATE
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.4 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(number * phase) / number for number in range(1, 16))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, 1)
    breath = draw.standard_normal(len(time)) * 0.01
    return np.asarray(0.2 * voice * syllables + breath, np.float32)
