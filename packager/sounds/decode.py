"""Samples of a sound by libsndfile, in a process that does nothing else.

What becomes of a sound: the mean of its channels, 16,000 samples a second (soxr in its high
quality, as the published processor's loader does), 32-bit floats. It goes through in pieces, so
that memory does not grow with its length.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from packager import limits
from packager.errors import PackError, bad_input
from packager.escapes import words_of
from packager.json_values import JsonObject
from packager.process import limit_memory
from packager.shape.audio import RATE
from packager.sounds.container import CONVERT, read, truncated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.runtime import Report

_MEMORY_BYTES = 2 << 30
"""Address space of the process: Python, the libraries and a few pieces."""
_VALUES = 1 << 20
"""Samples of all channels that are decoded at once."""
_KINDS = {
    "WAV": ("WAV", "WAVEX", "RF64"),
    "FLAC": ("FLAC",),
    "Ogg": ("OGG",),
    "MP3": ("MP3", "MPEG"),
}
"""What libsndfile calls the kinds of packager.sounds.container."""


def decode_job(report: Report, *, path: str, name: str, out: str, seconds: int) -> JsonObject:
    """The job of packager.sounds.taken: the samples of a sound as float32 in the file `out`;
    returns how many there are. `name` is what sentences call it, `seconds` the most that is taken.

    The memory of this process is bounded from now on.
    """
    limit_memory(_MEMORY_BYTES)
    with Path(out).open("wb") as file:
        return {"samples": decode(Path(path), name, file, seconds)}


def decode(path: Path, name: str, out: BinaryIO, seconds: int = limits.SOUND_SECONDS) -> int:
    """Write the samples; how many there are. Raises PackError (exit code 6) for what is no sound,
    is damaged or too long."""
    kind = read(path, name)
    # Late: both come with the extra for sound.
    import soundfile

    try:
        with soundfile.SoundFile(path) as sound:
            if sound.format not in _KINDS[kind]:
                raise ValueError(f"its parts disagree on its kind ({sound.format})")
            _check(sound, name, seconds)
            claimed = sound.frames if kind in ("WAV", "FLAC") else 0
            written, decoded = _resampled(sound, name, out, seconds)
    except PackError:
        raise
    except MemoryError:
        raise bad_input(f"{name} takes more memory than any sound.", CONVERT) from None
    except Exception as error:  # a decoder raises whatever its author thought of
        raise bad_input(f"{name} cannot be decoded: {words_of(error)}.", CONVERT) from error
    if decoded < claimed:
        raise truncated(name)
    if not written:
        raise bad_input(f"{name} holds no sound: it has no samples.", "Take another recording.")
    return written


def _check(sound: Any, name: str, seconds: int) -> None:
    rate, channels = sound.samplerate, sound.channels
    least, most = limits.SOUND_RATES
    if not least <= rate <= most:
        raise bad_input(
            f"{name} has {rate:,} samples a second; {least:,} to {most:,} are taken.",
            "Save it with 16,000 samples a second.",
        )
    if not 1 <= channels <= limits.SOUND_CHANNELS:
        raise bad_input(
            f"{name} has {channels} channels, more than {limits.SOUND_CHANNELS}.",
            "Save it with one channel.",
        )
    # Some headers promise more than any file holds: what is decoded is counted as well.
    if sound.frames < 1 << 62:
        _check_length(sound.frames, rate, name, seconds)


def _check_length(frames: int, rate: int, name: str, seconds: int) -> None:
    if frames > seconds * rate:
        raise bad_input(f"{name} is longer than {seconds // 60} minutes.", "Cut it into pieces.")


def _resampled(sound: Any, name: str, out: BinaryIO, seconds: int) -> tuple[int, int]:
    """Write the samples: how many were written, and how many frames were decoded."""
    import numpy as np
    import soxr

    rate = sound.samplerate
    stream = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, "float32", "HQ")
    frames = max(1, _VALUES // sound.channels)
    written = decoded = 0
    while len(block := sound.read(frames, "float32", always_2d=True)):
        _check_numbers(block, decoded, rate, name)
        decoded += len(block)
        _check_length(decoded, rate, name, seconds)
        mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
        written += _write(mono if stream is None else stream.resample_chunk(mono), out)
    if stream is not None:
        written += _write(stream.resample_chunk(np.zeros(0, np.float32), last=True), out)
    return written, decoded


def _write(samples: NDArray[np.float32], out: BinaryIO) -> int:
    out.write(samples.astype("<f4", copy=False).tobytes())
    return len(samples)


def _check_numbers(block: NDArray[np.float32], before: int, rate: int, name: str) -> None:
    import numpy as np

    good = (np.abs(block) <= limits.SOUND_PEAK).all(axis=1)
    if not good.all():
        second = (before + int(np.argmin(good))) / rate
        raise bad_input(
            f"{name} holds samples that are not valid numbers, or far too large, at second "
            f"{second:.1f}.",
            "Save it again with a sound editor.",
        )
