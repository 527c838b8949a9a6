"""One OpenVINO model with its audio encoder: what is said in a sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from packager.errors import usage
from packager.hearing import Heard
from packager.json_values import JsonObject
from packager.shape.audio import audio_tokens
from packager.sounds.silence import seconds_of
from targets.openvino import hearing, sound_files
from targets.openvino.session import OpenVinoSession, Streamer
from targets.openvino.sound_pipeline import SoundPipeline


class AudioSession(OpenVinoSession):
    """See packager.hearing.AudioSession. The encoder is loaded when the first sound comes."""

    window = None
    """A longer sound can be cut."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        sound_files.refuse_half(Path(artifact))
        super().__init__(artifact, settings)

    def open_encoder(self) -> float:
        """See packager.hearing.AudioSession."""
        began = time.perf_counter()
        self._pair().open_encoder()
        return time.perf_counter() - began

    def audio_tokens(self, count: int) -> int:
        """See packager.hearing.AudioSession."""
        return audio_tokens(seconds_of(count))

    def encode_audio(self, samples: NDArray[np.float32]) -> float:
        """See packager.hearing.AudioSession."""
        return self._pair().vectors(samples)[1]

    def embed_audio(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See packager.hearing.AudioSession."""
        return self._pair().vectors(samples)[0]

    def hear(
        self,
        texts: Sequence[str],
        samples: NDArray[np.float32],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Heard:
        """See packager.hearing.AudioSession. Raises PackError (usage) when prompt and answer exceed
        the context, before the sound is encoded."""
        if not texts[-1]:
            raise usage("No text follows the sound.", "Take the chat template of the package.")
        inside = self.audio_tokens(len(samples))
        ids = self._around(texts, inside)
        if len(ids) + max_new_tokens > self._context:
            raise usage(
                f"{len(ids)} + {max_new_tokens} tokens do not fit a context of {self._context}; "
                f"sounds take {inside} of them.",
                "Give a shorter sound, or build with a larger --max-audio-seconds.",
            )
        pair = self._pair()
        vectors, encode_s = pair.vectors(samples)
        streamer = Streamer(on_token, self._ends if stop else set())
        given = openvino.Tensor(np.asarray([ids], np.int64))
        pair.generate(given, self._config(max_new_tokens, stop), streamer, vectors)
        self._gather()
        if streamer.error is not None:
            raise streamer.error
        return Heard(streamer.tokens, len(ids), inside, encode_s)

    def answer_logits(
        self,
        texts: Sequence[str],
        embeddings: NDArray[np.float32],
        count: int,
        follow: Sequence[int] = (),
    ) -> tuple[NDArray[np.float32], list[int]]:
        """See packager.hearing.AudioSession."""
        pair = self._pair()
        row = pair.begin(self._around(texts, len(embeddings)), embeddings)
        rows, likeliest = [row.copy()], [int(row.argmax())]
        for number in range(count - 1):
            token = follow[number] if number < len(follow) else likeliest[-1]
            row = pair.follow(token)
            rows.append(row.copy())
            likeliest.append(int(row.argmax()))
        return np.stack(rows), likeliest

    def _around(self, texts: Sequence[str], tokens: int) -> list[int]:
        """Ids of a text, of so many tokens of a sound between its brackets, and of a text."""
        before, after = texts
        [pad] = self.encode(hearing.PAD)
        opened, closed = self.encode(before + hearing.BEGIN), self.encode(hearing.END + after)
        return [*opened, *[pad] * tokens, *closed]

    def _pair(self) -> SoundPipeline:
        pair = self._opened()
        assert isinstance(pair, SoundPipeline)
        return pair
