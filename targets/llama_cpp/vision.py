"""One GGUF model with its image encoder, loaded by llama.cpp: answers about pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.cores import cores
from packager.errors import bad_input, usage
from packager.session import Looked
from targets.gguf.presets import PROJECTOR
from targets.llama_cpp.image_encoder import Chunk, ImageEncoder
from targets.llama_cpp.session import BATCH, Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FACTORS = (28, 32)
"""Pixels of a side of an image token: a patch of 14 (Qwen2-VL, Qwen2.5-VL) or 16 (Qwen3-VL,
Qwen3.5), two of which are merged in each direction (config.json: patch_size,
spatial_merge_size)."""


class EncodedSession(Session):
    """A session whose prompts hold what an encoder makes of pictures or sound."""

    _encoder: ImageEncoder | None = None
    _smaller = "Give fewer or smaller pictures, or build with a longer --context."

    def _fitting(self, chunks: Sequence[Chunk], max_new_tokens: int) -> tuple[int, int]:
        """Tokens of a prompt, and of its pictures or sound among them. Each takes a cell of the
        cache, however few positions a picture has."""
        total = sum(chunk.tokens for chunk in chunks)
        inside = sum(chunk.tokens for chunk in chunks if chunk.ids is None)
        if total + max_new_tokens > self.context:
            noun = "pictures take" if self._encoder is None else f"{self._encoder.noun}s take"
            raise usage(
                f"{total} + {max_new_tokens} tokens do not fit a context of {self.context}; "
                f"{noun} {inside} of them.",
                self._smaller,
            )
        return total, inside

    def _read(self, encoder: ImageEncoder, chunks: Sequence[Chunk]) -> tuple[int, float]:
        """Fill the cold cache with a prompt: the position behind it, and the seconds that the
        encoder took."""
        self._lib.llama_memory_clear(self._memory, False)
        position, encode_s = 0, 0.0
        for chunk in chunks:
            if chunk.ids is not None:
                position = self.feed_at(chunk.ids, position)
                continue
            buffer, seconds = encoder.encode(chunk)
            encode_s += seconds
            behind = encoder.decode(self._context, chunk, buffer, position, BATCH)
            assert behind == position + chunk.positions
            position = behind
        return position, encode_s

    def _answered(
        self, position: int, max_new_tokens: int, on_token: Callable[[int], None], stop: bool
    ) -> list[int]:
        """Decode greedily from a position on."""
        answer: list[int] = []
        while len(answer) < max_new_tokens:
            token = self._best()
            if stop and self._lib.llama_vocab_is_eog(self._vocab, token):
                break
            answer.append(token)
            on_token(token)
            if len(answer) < max_new_tokens:
                position = self.feed_at([token], position)
        return answer

    def close(self) -> None:
        """See packager.session.Session."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        super().close()


class VisionSession(EncodedSession):
    """See packager.session.VisionSession. `settings` may hold image_min_tokens and
    image_max_tokens: a picture is resized to stay within them.

    A prompt of text alone is answered without the encoder ever being loaded.
    """

    # Any: JSON of a job, as of every session.
    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        self._projector = projector_file(Path(artifact))
        self._limits = (settings.get("image_min_tokens"), settings.get("image_max_tokens"))
        self._gpu = bool(settings.get("gpu_layers"))
        super().__init__(artifact, settings)

    def open_encoder(self) -> float:
        """See packager.session.VisionSession. It computes with all strong cores, as a prompt
        does."""
        started = time.perf_counter()
        self.encoder()
        return time.perf_counter() - started

    def encoder(self) -> ImageEncoder:
        """The image encoder, loaded when it is asked for first."""
        if self._encoder is None:
            least, most = self._limits
            self._encoder = ImageEncoder(
                self._projector,
                self._model,
                threads=max(self.threads, cores().big),
                gpu=self._gpu,
                least=least,
                most=most,
            )
        return self._encoder

    def image_tokens(self, width: int, height: int) -> int:
        """See packager.session.VisionSession."""
        blank = {"width": width, "height": height}
        with self.encoder().chunks(["", ""], [blank], count=True) as chunks:
            return sum(chunk.tokens for chunk in chunks if chunk.ids is None)

    def image_side(self, tokens: int) -> int:
        """See packager.session.VisionSession."""
        root = math.isqrt(tokens)
        for factor in _FACTORS:
            side = root * factor
            # A token more on each side is one more only where the factor is the right one.
            if (
                self.image_tokens(side, side) == tokens
                and self.image_tokens(side, side - factor) == tokens - root
            ):
                return side
        raise usage(
            f"No picture takes {tokens} tokens within the limits of this package.",
            "Take a smaller number, or build with a larger limit.",
        )

    def prompt_tokens(self, texts: Sequence[str], pictures: Sequence[Mapping[str, Any]]) -> int:
        """See packager.session.VisionSession."""
        with self.encoder().chunks(texts, pictures, count=True) as chunks:
            return sum(chunk.tokens for chunk in chunks)

    def encode_image(self, picture: Mapping[str, Any]) -> float:
        """See packager.session.VisionSession."""
        encoder = self.encoder()
        with encoder.chunks(["", ""], [picture]) as chunks:
            [image] = [chunk for chunk in chunks if chunk.ids is None]
            return encoder.encode(image)[1]

    def embed_image(self, picture: Mapping[str, Any]) -> NDArray[np.float32]:
        """See packager.session.VisionSession."""
        encoder = self.encoder()
        with encoder.chunks(["", ""], [picture]) as chunks:
            [image] = [chunk for chunk in chunks if chunk.ids is None]
            buffer, _ = encoder.encode(image)
            return encoder.array(buffer, image)

    def image_places(self, columns: int, rows: int, side: int) -> NDArray[np.int64]:
        """See packager.session.VisionSession."""
        encoder = self.encoder()
        blank = {"width": columns * side, "height": rows * side}
        with encoder.chunks(["", ""], [blank], count=True) as chunks:
            [image] = [chunk for chunk in chunks if chunk.ids is None]
            return encoder.places(image)

    def answer_logits(
        self, texts: tuple[str, str], picture: Mapping[str, Any], answer: Sequence[int]
    ) -> NDArray[np.float32]:
        """See packager.session.VisionSession."""
        # Late: numpy comes with the engine.
        import numpy as np

        encoder = self.encoder()
        with encoder.chunks(texts, [picture]) as chunks:
            self._fitting(chunks, len(answer))
            position, _ = self._read(encoder, chunks)
        rows = [self._last()]
        for token in answer[:-1]:
            position = self.feed_at([token], position)
            rows.append(self._last())
        return np.stack(rows)

    def _last(self) -> NDArray[np.float32]:
        import numpy as np

        width = self._lib.llama_vocab_n_tokens(self._vocab)
        buffer = self._lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(buffer, (width,)).copy()

    def look(
        self,
        texts: Sequence[str],
        pictures: Sequence[Mapping[str, Any]],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Looked:
        """See packager.session.VisionSession. Raises PackError (usage) when prompt and answer
        exceed the context, before a picture is encoded."""
        encoder = self.encoder()
        if not texts[-1]:
            raise usage("No text follows the pictures.", "Ask something about them.")
        # Counted first: pixels are read and resized only for a prompt that fits.
        with encoder.chunks(texts, pictures, count=True) as chunks:
            total, images = self._fitting(chunks, max_new_tokens)
        with encoder.chunks(texts, pictures) as chunks:
            position, encode_s = self._read(encoder, chunks)
        answer = self._answered(position, max_new_tokens, on_token, stop)
        return Looked(answer, total, images, encode_s)


def projector_file(artifact: Path) -> Path:
    """The image encoder of an artifact's folder. Raises PackError (bad input) where there is
    none."""
    path = artifact / PROJECTOR
    if not path.is_file():
        raise bad_input(f"{artifact} holds no {PROJECTOR}.", "Build the package again.")
    return path
