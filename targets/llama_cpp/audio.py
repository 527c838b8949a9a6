"""One GGUF model with its audio encoder, loaded by llama.cpp: what is said in a sound."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.cores import cores
from packager.errors import bad_input, no_room, usage
from packager.hearing import Heard
from packager.json_values import JsonObject
from packager.shape.audio import CHUNK_FRAMES, HOP, audio_tokens
from targets.llama_cpp.image_encoder import ImageEncoder
from targets.llama_cpp.vision import EncodedSession, projector_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BRACKETS = ("<|audio_start|>", "<|audio_end|>")
SECOND = CHUNK_FRAMES * HOP
"""Samples that become one chunk of tokens."""


def whole_seconds(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples with silence up to whole seconds, less one sample.

    llama.cpp takes one frame more than the published processor (n // 160 + 1 for n samples), and
    makes 13 tokens of each second that has begun: a whole number of seconds would get 13 tokens of
    nothing behind it. Without the last sample the frames are as many as the published ones of those
    seconds.
    """
    import numpy as np

    seconds = max(1, -(-len(samples) // SECOND))
    padded = np.zeros(seconds * SECOND - 1, np.float32)
    count = min(len(samples), len(padded))
    padded[:count] = samples[:count]
    return padded


class AudioEncoder(ImageEncoder):
    """The same for sound: what it is given are samples instead of pictures."""

    kind = "an audio encoder"
    noun = "sound"

    def _fits(self) -> bool:
        return bool(self._lib.mtmd_support_audio(self._context))

    def _bitmap(self, picture: Mapping[str, Any], count: bool) -> Any:
        samples = whole_seconds(picture["samples"])
        pointer = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        bitmap = self._lib.mtmd_bitmap_init_from_audio(len(samples), pointer)
        if not bitmap:
            raise no_room("There is no memory for the sound.", "Take a shorter one.")
        return bitmap


class AudioSession(EncodedSession):
    """See packager.runtime.AudioSession. A prompt of text alone is answered without the encoder
    ever being loaded."""

    _smaller = "Give a shorter sound, or build with a larger --max-audio-seconds."

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        self._projector = projector_file(Path(artifact))
        self._gpu = bool(settings.get("gpu_layers"))
        super().__init__(artifact, dict(settings))

    def open_encoder(self) -> float:
        """See packager.runtime.AudioSession."""
        started = time.perf_counter()
        self.encoder()
        return time.perf_counter() - started

    def encoder(self) -> ImageEncoder:
        """The audio encoder, loaded when it is asked for first."""
        if self._encoder is None:
            for bracket in _BRACKETS:
                # The engine takes what it does not know for plain text, and says nothing.
                if len(self.encode(bracket)) != 1:
                    raise bad_input(
                        f"The vocabulary of the model has no {bracket}, which sound needs.",
                        "Build it from the checkpoint as it was published.",
                    )
            self._encoder = AudioEncoder(
                self._projector, self._model, threads=max(self.threads, cores().big), gpu=self._gpu
            )
        return self._encoder

    def audio_tokens(self, count: int) -> int:
        """See packager.runtime.AudioSession."""
        return audio_tokens(max(1, -(-count // SECOND)))

    def encode_audio(self, samples: NDArray[np.float32]) -> float:
        """See packager.runtime.AudioSession."""
        encoder = self.encoder()
        with encoder.chunks(["", ""], [{"samples": samples}]) as chunks:
            return sum(encoder.encode(chunk)[1] for chunk in chunks if chunk.ids is None)

    def embed_audio(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See packager.runtime.AudioSession."""
        import numpy as np

        encoder = self.encoder()
        with encoder.chunks(["", ""], [{"samples": samples}]) as chunks:
            windows = [chunk for chunk in chunks if chunk.ids is None]
            return np.concatenate([encoder.array(encoder.encode(one)[0], one) for one in windows])

    def hear(
        self,
        texts: Sequence[str],
        samples: NDArray[np.float32],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Heard:
        """See packager.runtime.AudioSession. Raises PackError: usage when prompt and answer exceed
        the context, bad input where the engine counts other tokens than are planned for."""
        encoder = self.encoder()
        if not texts[-1]:
            raise usage("No text follows the sound.", "Take the chat template of the package.")
        with encoder.chunks(texts, [{"samples": samples}]) as chunks:
            total, inside = self._fitting(chunks, max_new_tokens)
            if inside != self.audio_tokens(len(samples)):
                raise bad_input(
                    f"llama.cpp makes {inside} tokens of a sound that is planned with "
                    f"{self.audio_tokens(len(samples))}.",
                    "Install the version of llama-cpp-python that qwen-pack names.",
                )
            position, encode_s = self._read(encoder, chunks)
        answer = self._answered(position, max_new_tokens, on_token, stop)
        return Heard(answer, total, inside, encode_s)
