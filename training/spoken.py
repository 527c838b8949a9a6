"""Sounds of words that are made here: digits as a telephone dials them, two tones each (ITU-T
Q.23), and the same digits spoken by espeak-ng, where it is installed."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LOW, _HIGH = (697, 770, 852, 941), (1209, 1336, 1477)
_KEYS = ((3, 1), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))
"""Row and column of each digit on the keys of a telephone."""
VOICES = tuple(
    f"{language}+{variant}"
    for language in ("en-us", "en-gb")
    for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f4", "f5")
)
HELD_OUT = ("en-us+m2", "en-gb+f3")
"""Voices that are never trained with."""
_LOUD = 0.02

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """A sound, and the digits in it."""

    samples: Samples
    digits: str
    places: tuple[tuple[int, int], ...]
    """Where each digit begins and ends, in samples."""

    @property
    def text(self) -> str:
        """What a transcript of it is: digits with spaces between them."""
        return " ".join(self.digits)


def has_espeak() -> bool:
    """Whether espeak-ng can speak here, with its voices."""
    if shutil.which("espeak-ng") is None:
        return False
    words = ["espeak-ng", "-v", HELD_OUT[0], "--stdout", WORDS[1]]
    done = subprocess.run(words, capture_output=True, check=False)
    return done.returncode == 0 and len(done.stdout) > RATE // 10


def dialled(digit: int, seconds: float) -> Samples:
    """One digit as two tones."""
    row, column = _KEYS[digit]
    time = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * tone * time) for tone in (_LOW[row], _HIGH[column]))
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    return np.asarray(0.25 * tones * edge, np.float32)


def spoken(word: str, voice: str, speed: int, pitch: int) -> Samples:
    """A word from espeak-ng, without the silence around it; speed in words a minute."""
    # Late: both come with the extra for sound.
    import soundfile
    import soxr

    done = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word],
        capture_output=True,
        check=True,
    )
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    samples = soxr.resample(samples, rate, RATE, "HQ")
    loud = np.flatnonzero(np.abs(samples) > _LOUD)
    return np.asarray(samples[loud[0] : loud[-1] + 1], np.float32)


class Speech:
    """Digits by espeak-ng in several voices, each spoken once and kept."""

    def __init__(self, voices: tuple[str, ...]) -> None:
        self._voices = voices
        self._kept: dict[tuple[int, str, int, int], Samples] = {}

    def word(self, digit: int, chance: random.Random) -> Samples:
        """One of the ways in which a digit is said."""
        key = (
            digit,
            chance.choice(self._voices),
            *chance.choice(((150, 50), (175, 40), (130, 60))),
        )
        if key not in self._kept:
            self._kept[key] = spoken(WORDS[digit], *key[1:])
        return self._kept[key]


def said(chance: random.Random, seconds: int, speech: Speech | None) -> Said:
    """Digits with pauses in a sound of that length: spoken, or dialled without `speech`."""
    noise = np.random.default_rng(chance.getrandbits(32))
    samples = noise.normal(0, 0.002, seconds * RATE).astype(np.float32)
    place, digits = int(chance.uniform(0.05, 0.3) * RATE), ""
    places: list[tuple[int, int]] = []
    while True:
        digit = chance.randrange(10)
        if speech is None:
            word = dialled(digit, chance.uniform(0.15, 0.3))
        else:
            word = speech.word(digit, chance)
        if place + len(word) > len(samples) - RATE // 20:
            break
        samples[place : place + len(word)] += word * np.float32(chance.uniform(0.5, 1.0))
        digits += str(digit)
        places.append((place, place + len(word)))
        place += len(word) + int(chance.uniform(0.1, 0.4) * RATE)
    return Said(samples, digits, tuple(places))
