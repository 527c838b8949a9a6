"""Figures of a model that takes sound: how long encoding takes, the first word, how many seconds of
sound it writes down in one, and the memory of it all.

The sounds are made here: what is measured does not depend on a decoder of files, nor on who speaks.
Their text is as long as that of speech, whatever the model says.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from packager.hearing import AudioSession
from packager.json_values import JsonObject, at, object_at
from packager.measure.dictation import written_down
from packager.runtime import Report
from packager.shape.audio import RATE
from packager.sounds.made import made
from packager.sounds.words import WordErrors, word_errors

VERSION = 1
"""Raised when the same artifact would give other figures."""

_REPEATS = 3
_PATIENCE_S = 60.0
"""Seconds that a figure may take: less is repeated, and longer sound left out."""
_TOKENS_PER_SECOND = 4
"""Tokens of the text of a second of speech: 150 words a minute are 2.5 a second, each of one to two
tokens."""
_TEXTS = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
_AROUND = 32
"""Tokens that these take at most, with what the session sets around a sound."""


@dataclass
class Listening:
    """The part of a measurement that is of sound. `seconds` are what the package was planned to
    take at once."""

    report: Report
    model: AudioSession
    context: int
    seconds: int
    left_out: list[str] = field(default_factory=list)

    # Any: figures that go to the manifest, whose type checks them.
    def figures(self, peak: Callable[[], int]) -> dict[str, Any]:
        """Fields of packager.records.Measurement; `peak` tells the most memory so far, in bytes."""
        found: dict[str, Any] = {"text_peak_memory_bytes": peak()}
        found["audio_load_s"] = self.model.open_encoder()
        seconds = self._room()
        if seconds < self.seconds:
            self.left_out.append(
                f"sound of {self.seconds} s: the context of {self.context} holds {max(0, seconds)}"
            )
        if seconds < 1:
            return found
        encoded = self._median(lambda seed: self.model.encode_audio(made(seconds, seed)))
        self.report.note(f"a sound of {seconds} s: {encoded:.3g} s to encode")
        firsts: list[float] = []
        wholes: list[float] = []
        tokens = _TOKENS_PER_SECOND * seconds

        def heard(seed: int) -> float:
            stamps: list[float] = []
            samples = made(seconds, seed)
            start = time.perf_counter()
            self.model.hear(
                _TEXTS, samples, tokens, lambda _: stamps.append(time.perf_counter()), stop=False
            )
            firsts.append(stamps[0] - start)
            wholes.append(stamps[-1] - start)
            return wholes[-1]

        self._median(heard)
        return found | {
            "audio_seconds": seconds,
            "audio_encode_ms": 1000 * encoded,
            "audio_ttft_ms": 1000 * statistics.median(firsts),
            "audio_seconds_per_second": seconds / statistics.median(wholes),
        }

    def _room(self) -> int:
        """Whole seconds of sound whose tokens and text fit the context."""
        room = self.context - _AROUND
        return next(
            (
                seconds
                for seconds in range(self.seconds, 0, -1)
                if self.model.audio_tokens(seconds * RATE) + _TOKENS_PER_SECOND * seconds <= room
            ),
            0,
        )

    def transcribed(
        self, recordings: Sequence[JsonObject], texts: Sequence[str], most: int
    ) -> dict[str, Any]:
        """Word errors over recordings: each has a `sound` (packager.sounds.Samples) and the `text`
        that is said in it. `texts` stand before and after a sound, an answer has at most `most`
        tokens for each piece."""
        total, seconds = WordErrors(0, 0), 0.0
        for number, row in enumerate(recordings, 1):
            sound = object_at(row, "sound")
            whole = written_down(self.model, texts, sound, self.seconds, self.context, most)
            if not whole.ended:
                self.left_out.append(f"the end of recording {number}: its text fills the context")
            total += word_errors(whole.text, at(row, "text", str))
            seconds += at(sound, "count", int) / RATE
            self.report.progress(number, len(recordings), "recordings")
        return {
            "word_error_percent": 100 * total.rate,
            "transcript_words": total.words,
            "transcript_seconds": seconds,
        }

    def _median(self, taken: Callable[[int], float]) -> float:
        """Seconds, the median of a few times; of one alone where it takes long."""
        values: list[float] = []
        began = time.monotonic()
        while len(values) < _REPEATS and time.monotonic() - began < _PATIENCE_S / _REPEATS:
            values.append(taken(len(values)))
        return statistics.median(values)
