"""Where a long sound is cut so that each piece fits: at the quietest moment of the last seconds
before the limit, as Qwen3-ASR's own package does (qwen_asr/inference/utils.py,
split_audio_into_chunks), which looks at seconds behind the limit as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from packager.errors import PackError, bad_input
from packager.shape.audio import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SEARCHED = 5 * RATE
_QUIET = RATE // 10
"""Samples over which it must be quiet: a tenth of a second."""


def pieces(samples: NDArray[np.float32], seconds: int) -> Iterator[tuple[int, int]]:
    """Beginning and end, in samples, of pieces of at most `seconds` that follow one another and
    cover all."""
    most, start = seconds * RATE, 0
    while len(samples) - start > most:
        end = start + _quietest(samples[start : start + most])
        yield start, end
        start = end
    yield start, len(samples)


def too_long(has: float, most: int) -> PackError:
    """The refusal (exit code 6) of a sound of `has` seconds that a package takes as a whole."""
    return bad_input(
        f"The sound has {has:.1f} s, and this package takes {most} s and no more: its answer is "
        "about a sound as a whole.",
        "Cut the sound, and ask about each part.",
    )


def _quietest(piece: NDArray[np.float32]) -> int:
    """The middle of the quietest tenth of a second in the last seconds of a piece; at most half of
    it is searched."""
    import numpy as np

    first = len(piece) - min(_SEARCHED, len(piece) // 2)
    energy = np.concatenate([[0.0], np.cumsum(np.abs(piece[first:], dtype=np.float64))])
    window = energy[_QUIET:] - energy[:-_QUIET]
    return first + int(np.argmin(window)) + _QUIET // 2
