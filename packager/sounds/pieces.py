"""The pieces of a sound that a request brings, each with the texts around it: what the engines of
the server that listen have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.scratch import temporary_folder
from packager.shape.audio import RATE
from packager.sounds import prompt as places
from packager.sounds import take_data
from packager.sounds.cut import pieces, too_long

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Part:
    """The texts before and after a piece, its samples, and where it ends, in seconds from the
    beginning of the sound."""

    texts: list[str]
    samples: NDArray[np.float32]
    end_s: float


def parts_of(
    prompt: str,
    sound: bytes,
    language: str | None,
    log: Path,
    seconds: int,
    *,
    whole: bool = False,
) -> Iterator[Part]:
    """The pieces of at most `seconds` of the file `sound`; `log` takes what its decoder prints. The
    answer is opened in a `language`, where that is known.

    Raises PackError for a file that is no sound, a prompt that has not one place for it, and a
    longer sound where it is taken `whole` or not at all.
    """
    before, after = places.around(prompt)
    opening = places.opened_in(language) if language else ""
    samples = _samples(sound, log)
    if whole and len(samples) > seconds * RATE:
        raise too_long(len(samples) / RATE, seconds)
    for begin, end in pieces(samples, seconds):
        yield Part([before, after + opening], samples[begin:end], end / RATE)


def _samples(sound: bytes, log: Path) -> NDArray[np.float32]:
    # Late: a package of text alone does without.
    import numpy as np

    with temporary_folder() as folder:
        taken = take_data(sound, Path(folder), log)
        return np.fromfile(taken.path, "<f4")
