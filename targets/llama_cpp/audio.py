"""One GGUF model with its audio encoder, loaded by llama.cpp: what is said in a sound."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.cores import cores
from packager.errors import bad_input, no_room, usage
from packager.hearing import Heard
from packager.inspection.gguf_header import read
from packager.json_values import JsonObject
from packager.shape.audio import FRAME, RATE, audio_tokens
from packager.shape.whisper import SECONDS, TOKENS, most_samples
from packager.sounds import silence
from packager.sounds.cut import too_long
from targets.llama_cpp.image_encoder import ImageEncoder
from targets.llama_cpp.session import BATCH
from targets.llama_cpp.vision import EncodedSession, projector_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BRACKETS = ("<|audio_start|>", "<|audio_end|>")
_BRACKETS_OF_WINDOWS = ("<|audio_bos|>", "<|audio_eos|>")
_WINDOWS = "qwen2a"
"""The projector of Qwen2-Audio, which takes every sound as 30 seconds."""


def whole_seconds(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples with silence up to whole seconds, less one sample.

    llama.cpp takes one frame more than the published processor (n // 160 + 1 for n samples), and
    makes 13 tokens of each second that has begun: a whole number of seconds would get 13 tokens of
    nothing behind it. Without the last sample the frames are as many as the published ones of those
    seconds.
    """
    return silence.whole_seconds(samples)[:-1]


def one_window(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples, without the last 161 of 30 seconds: with them the engine begins a second window
    of 750 tokens. Silence up to 30 seconds it adds itself, but to a single sample, at which it
    aborts."""
    import numpy as np

    taken = samples[: most_samples(RATE)]
    filled = np.zeros(max(len(taken), FRAME), np.float32)
    filled[: len(taken)] = taken
    return filled


class AudioEncoder(ImageEncoder):
    """The same for sound: what it is given are samples instead of pictures."""

    kind = "an audio encoder"
    noun = "sound"
    windows = False
    """Whether the engine fills every sound up to 30 seconds."""

    def _fits(self) -> bool:
        return bool(self._lib.mtmd_support_audio(self._context))

    def _bitmap(self, picture: Mapping[str, Any], count: bool) -> Any:
        samples = picture["samples"]
        samples = one_window(samples) if self.windows else whole_seconds(samples)
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

    @cached_property
    def window(self) -> int | None:
        """Seconds that a sound has at most, whatever the package was planned for; None where a
        longer one can be cut."""
        asked = read(self._projector).text("clip.projector_type") == _WINDOWS
        return SECONDS if asked else None

    def open_encoder(self) -> float:
        """See packager.runtime.AudioSession."""
        started = time.perf_counter()
        self.encoder()
        return time.perf_counter() - started

    def encoder(self) -> ImageEncoder:
        """The audio encoder, loaded when it is asked for first."""
        if self._encoder is None:
            for bracket in _BRACKETS if self.window is None else _BRACKETS_OF_WINDOWS:
                # The engine takes what it does not know for plain text, and says nothing.
                if len(self.encode(bracket)) != 1:
                    raise bad_input(
                        f"The vocabulary of the model has no {bracket}, which sound needs.",
                        "Build it from the checkpoint as it was published.",
                    )
            encoder = AudioEncoder(
                self._projector, self._model, threads=max(self.threads, cores().big), gpu=self._gpu
            )
            encoder.windows = self.window is not None
            self._encoder = encoder
        return self._encoder

    def audio_tokens(self, count: int) -> int:
        """See packager.runtime.AudioSession."""
        if self.window is not None:
            return TOKENS
        return audio_tokens(silence.seconds_of(count))

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
        if self.window is not None and len(samples) > self.window * RATE:
            raise too_long(len(samples) / RATE, self.window)
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

    def answer_logits(
        self,
        texts: Sequence[str],
        embeddings: NDArray[np.float32],
        count: int,
        follow: Sequence[int] = (),
    ) -> tuple[NDArray[np.float32], list[int]]:
        """See packager.hearing.AudioSession."""
        import numpy as np

        self._lib.llama_memory_clear(self._memory, False)
        before, after = texts
        position = self.feed_at(self.encode(before), 0)
        position = self._feed_vectors(embeddings, position)
        position = self.feed_at(self.encode(after), position)
        width = self._lib.llama_vocab_n_tokens(self._vocab)
        rows, likeliest = [], []
        for number in range(count):
            buffer = self._lib.llama_get_logits_ith(self._context, -1)
            rows.append(np.ctypeslib.as_array(buffer, (width,)).copy())
            likeliest.append(int(rows[-1].argmax()))
            if number + 1 < count:
                token = follow[number] if number < len(follow) else likeliest[-1]
                position = self.feed_at([token], position)
        return np.stack(rows), likeliest

    def _feed_vectors(self, vectors: NDArray[np.float32], position: int) -> int:
        """Compute vectors (tokens, width) in place of tokens, at a position; the one after them."""
        import numpy as np

        width = int(vectors.shape[1])
        batch = self._lib.llama_batch_init(BATCH, width, 1)
        try:
            for start in range(0, len(vectors), BATCH):
                piece = np.ascontiguousarray(vectors[start : start + BATCH], np.float32)
                batch.n_tokens = len(piece)
                ctypes.memmove(batch.embd, piece.ctypes.data, piece.nbytes)
                for row in range(len(piece)):
                    batch.pos[row] = position + start + row
                    batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 0
                self._compute(batch, len(piece))
        finally:
            self._lib.llama_batch_free(batch)
        return position + len(vectors)
