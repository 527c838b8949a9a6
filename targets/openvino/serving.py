"""An OpenVINO model with its vision tower behind the server of packager.shipping.server: one answer
at a time. The engine takes a prompt as text with a place for each picture, and counts their tokens
itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy
import openvino
import openvino_genai

from packager.errors import PackError
from packager.pictures import prompt as places
from packager.pictures import take_data
from packager.scratch import temporary_folder
from packager.shipping.server import engine_openvino
from packager.shipping.server.refused import Refused
from packager.shipping.server.settings import Settings
from targets.openvino import pixels, seeing

# Any: the engine's own objects.


class Engine(engine_openvino.Engine):
    """See packager.shipping.server.answers.Engine and SeeingEngine. In the ids of a prompt, each
    token of a picture is a negative number that stands for its content."""

    def __init__(self, settings: Settings, unit: str, log: Path) -> None:
        """`log` takes what the decoder of files prints."""
        self._limits, _ = pixels.read(settings.model)
        self._log = log
        self._given: dict[int, Any] = {}
        """The pictures of this request."""
        super().__init__(settings, unit)

    def _open(self, model: Path, unit: str, **properties: Any) -> Any:
        return openvino_genai.VLMPipeline(model, unit, **properties)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt of text. Raises Refused for one that writes a place for a picture
        itself."""
        own = seeing.OWN_PLACES + places.PLACES
        written = next((place for place in own if place in text), None)
        if written is not None:
            raise Refused(f"the prompt writes {written} itself")
        return super().encode(text)

    def encode_pictures(self, prompt: str, pictures: Sequence[bytes]) -> list[int]:
        """Token ids of a prompt with pictures. The pixels are kept until the next one's."""
        self._given = {}
        ids: list[int] = []
        try:
            texts = places.around(prompt, len(pictures))
            for text, row in zip(texts, [*self._taken(pictures), None], strict=True):
                ids += self.encode(text) if text else []
                ids += [] if row is None else self._numbered(row)
        except PackError as error:
            raise Refused(error.message) from error
        return ids

    def _taken(self, pictures: Sequence[bytes]) -> Iterator[Any]:
        """The pixels (height, width, 3) of files."""
        with temporary_folder() as folder:
            for row in take_data(pictures, Path(folder), self._log):
                data = numpy.fromfile(row.path, numpy.uint8)
                yield data.reshape(row.height, row.width, 3)

    def _numbered(self, picture: Any) -> list[int]:
        """As many numbers as a picture takes tokens, those around it among them."""
        height, width, _ = picture.shape
        told = f"{width} {height} ".encode() + picture.tobytes()
        name = -1 - int.from_bytes(hashlib.sha256(told).digest()[:7], "big")
        self._given[name] = picture
        return [name] * (self._limits.tokens(width, height) + 2)

    def _run(self, ids: list[int], config: Any, streamer: Any) -> None:
        if ids[-1] < 0:
            raise Refused("no text follows the pictures")
        text, given = "", []
        for name, run in groupby(ids, lambda number: number if number < 0 else None):
            if name is None:
                text += self.decode(list(run))
                continue
            # The same picture may stand twice behind one another.
            tokens = self._limits.tokens(*self._given[name].shape[1::-1]) + 2
            for _ in range(len(list(run)) // tokens):
                text += places.PLACES[0]
                given.append(openvino.Tensor(self._given[name][None]))
        config.apply_chat_template = False
        self._pipeline.generate(text, images=given, generation_config=config, streamer=streamer)
