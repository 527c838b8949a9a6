"""Silence behind a sound, up to whole seconds: what the encoder of Qwen3-ASR takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.shape.audio import CHUNK_FRAMES, HOP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECOND = CHUNK_FRAMES * HOP
"""Samples that become one chunk of tokens."""


def whole_seconds(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples with silence up to whole seconds, one of them at least."""
    import numpy as np

    filled = np.zeros(seconds_of(len(samples)) * SECOND, np.float32)
    filled[: len(samples)] = samples
    return filled


def seconds_of(count: int) -> int:
    """Seconds that have begun with so many samples, one at least."""
    return max(1, -(-count // SECOND))
