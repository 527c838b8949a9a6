"""One OpenVINO model with its vision tower, driven through VLMPipeline of openvino-genai: answers
about pictures.

Answers come from the pipeline. Vectors of image tokens it does not hand out: for those the tower's
graphs are compiled by themselves, and one copy of the weights is open at a time.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from packager.errors import bad_input, usage
from packager.json_values import JsonObject, at_or_none
from packager.scratch import temporary_folder
from packager.session import Looked, require_room
from packager.shape.tower import CHANNELS
from targets.openvino import pixels, preprocessor, seeing
from targets.openvino.image_encoder import ImageEncoder
from targets.openvino.pixels import FILE, Limits
from targets.openvino.scorer import SeeingScorer
from targets.openvino.session import PLACE, OpenVinoSession, Streamer, load

_MIDDLE = "<|image_pad|>"
"""The token of PLACE that stands for those of the picture."""


class VisionSession(OpenVinoSession):
    """See packager.session.VisionSession. `settings` may hold image_min_tokens and
    image_max_tokens: a picture is resized to stay within them; else within those of the artifact.

    The pipeline opens the tower with the decoder, also for text alone.
    """

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        folder = Path(artifact)
        if not (folder / seeing.MERGER).is_file():
            raise bad_input(f"{artifact} holds no {seeing.MERGER}.", "Build the package again.")
        own, self._preprocessor = pixels.read(folder)
        asked = (at_or_none(settings, f"image_{end}_tokens", int) for end in ("min", "max"))
        self._limits: Limits = own.but(*asked)
        self._resized = self._limits != own
        self._encoder: ImageEncoder | None = None
        super().__init__(artifact, settings)

    def _loaded(self, scheduler: Any, properties: JsonObject) -> Any:
        self._encoder = None
        kind = openvino_genai.VLMPipeline
        if not self._resized:
            return load(kind, self._artifact, scheduler, properties)
        # The limits stand in a file of the artifact: beside the same graphs, another one.
        with temporary_folder() as made:
            folder = Path(made)
            for path in self._artifact.iterdir():
                if path.name != FILE:
                    (folder / path.name).symlink_to(path.absolute())
            text = preprocessor.with_limits(self._preprocessor, self._limits)
            (folder / FILE).write_text(text, encoding="utf-8")
            return load(kind, folder, scheduler, properties)

    def open_encoder(self) -> float:
        """See packager.session.VisionSession."""
        began = time.perf_counter()
        self.encoder()
        return time.perf_counter() - began

    def encoder(self) -> ImageEncoder:
        """The tower by itself; the pipeline is closed until the next answer."""
        if self._encoder is None:
            self._pipeline = None
            gc.collect()
            self._encoder = ImageEncoder(self._artifact, self._settings)
        return self._encoder

    def image_tokens(self, width: int, height: int) -> int:
        """See packager.session.VisionSession."""
        return self._limits.tokens(width, height)

    def image_side(self, tokens: int) -> int:
        """See packager.session.VisionSession."""
        side = math.isqrt(tokens) * self._limits.token
        if self._limits.resized(side, side) == (side, side):
            return side
        raise usage(
            f"No picture takes {tokens} tokens within the limits of this package.",
            "Take a smaller number, or build with a larger limit.",
        )

    def prompt_tokens(self, texts: Sequence[str], pictures: Sequence[Mapping[str, Any]]) -> int:
        """See packager.session.VisionSession."""
        return sum(self._tokens(texts, pictures))

    def encode_image(self, picture: Mapping[str, Any]) -> float:
        """See packager.session.VisionSession. The picture is one of whole tokens."""
        return self.encoder().encode(_pixels(picture))[1]

    def embed_image(self, picture: Mapping[str, Any]) -> NDArray[np.float32]:
        """See packager.session.VisionSession. The picture is one of whole tokens, and is not
        resized."""
        return self.encoder().encode(_pixels(picture))[0]

    def image_places(self, columns: int, rows: int, side: int) -> None:
        """See packager.session.VisionSession: the pipeline keeps its positions to itself."""

    def answer_logits(
        self, texts: tuple[str, str], picture: Mapping[str, Any], answer: Sequence[int]
    ) -> NDArray[np.float32]:
        """See packager.session.VisionSession. By the graphs themselves: the pipeline gives no
        logits."""
        before, after = (self.encode(text) for text in PLACE.join(texts).split(_MIDDLE))
        vectors = self.embed_image(picture)
        require_room(len(before) + len(vectors) + len(after), len(answer), self._context)
        scorer = self._scorer
        if not isinstance(scorer, SeeingScorer):
            scorer = self._scorer = SeeingScorer(self._artifact, self._settings)
        rows, columns = (int(picture[side]) // self._limits.token for side in ("height", "width"))
        [middle] = self.encode(_MIDDLE)
        ids = [*before, middle, *after, *answer[:-1]]
        logits = scorer.behind_picture(ids, len(before), vectors, (rows, columns))
        return logits[-len(answer) :].copy()

    def look(
        self,
        texts: Sequence[str],
        pictures: Sequence[Mapping[str, Any]],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Looked:
        """See packager.session.VisionSession. `encode_s` is the engine's own figure for preparing
        the embeddings of the prompt, resizing in it. Raises PackError (usage) when prompt and
        answer exceed the context, before a picture is read."""
        if not texts[-1]:
            raise usage("No text follows the pictures.", "Ask something about them.")
        text, images = self._tokens(texts, pictures)
        if text + images + max_new_tokens > self._context:
            raise usage(
                f"{text + images} + {max_new_tokens} tokens do not fit a context of "
                f"{self._context}; pictures take {images} of them.",
                "Give fewer or smaller pictures, or build with a longer --context.",
            )
        given = [openvino.Tensor(_pixels(picture)[None]) for picture in pictures]
        streamer = Streamer(on_token, self._ends if stop else set())
        answer = self._answer(
            PLACE.join(texts), given, self._config(max_new_tokens, stop), streamer
        )
        self._gather()
        if streamer.error is not None:
            raise streamer.error
        prepared = answer.perf_metrics.get_prepare_embeddings_duration().mean / 1000
        return Looked(streamer.tokens, text + images, images, prepared)

    def _tokens(
        self, texts: Sequence[str], pictures: Sequence[Mapping[str, Any]]
    ) -> tuple[int, int]:
        """Tokens of a prompt's text, and of its pictures."""
        assert len(texts) == len(pictures) + 1
        text = len(self.encode(PLACE.join(texts))) - len(pictures)
        sizes = [(int(picture["width"]), int(picture["height"])) for picture in pictures]
        return text, sum(self._limits.tokens(*size) for size in sizes)

    def close(self) -> None:
        """See packager.session.Session."""
        self._encoder = None
        super().close()


def _pixels(picture: Mapping[str, Any]) -> NDArray[np.uint8]:
    """(height, width, 3). Raises PackError (exit code 6) for other bytes than its sides say."""
    width, height = int(picture["width"]), int(picture["height"])
    given = picture.get("data")
    data = Path(picture["path"]).read_bytes() if given is None else bytes(given)
    if len(data) != width * height * CHANNELS:
        raise bad_input(
            f"The picture has {len(data)} bytes of pixels where {width} x {height} take "
            f"{width * height * CHANNELS}.",
            "Give it again.",
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, CHANNELS)
