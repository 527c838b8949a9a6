"""An OpenVINO model with its audio encoder behind the server of packager.shipping.server: one
answer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import openvino

from packager.errors import PackError
from packager.shipping.server import engine_openvino
from packager.shipping.server.answers import OnToken, SoundPiece
from packager.shipping.server.refused import Refused
from packager.shipping.server.settings import Settings
from packager.sounds import prompt as places
from packager.sounds.pieces import parts_of
from targets.openvino import hearing
from targets.openvino.opening import opening
from targets.openvino.sound_pipeline import SoundPipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Any: the engine's own objects.

_HEARD = -1
"""Stands in the ids of a prompt for a token of the sound."""


class Engine(engine_openvino.Engine):
    """See packager.shipping.server.answers.Engine and HearingEngine."""

    languages = places.LANGUAGES

    def __init__(self, settings: Settings, unit: str, log: Path) -> None:
        """`log` takes what the decoder of files prints."""
        self._log, self._seconds = log, settings.audio_seconds
        self._vectors: NDArray[numpy.float32] | None = None
        """Those of the piece whose ids were given out last."""
        super().__init__(settings, unit)

    def _open(self, model: Path, unit: str, **properties: Any) -> Any:
        with opening(model):
            return SoundPipeline(model, unit, **properties)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt of text. Raises Refused for one that writes a place for a sound
        itself."""
        written = next((token for token in places.CONTROL if token in text), None)
        if written is not None:
            raise Refused(f"the prompt writes {written} itself")
        return super().encode(text)

    def encode_sound(
        self, prompt: str, sound: bytes, language: str | None = None
    ) -> Iterator[SoundPiece]:
        """A prompt with each piece of a sound when it is its turn."""
        try:
            for part in parts_of(prompt, sound, language, self._log, self._seconds):
                before, after = part.texts
                self._vectors, _ = self._pipeline.vectors(part.samples)
                ids = super().encode(before + hearing.BEGIN)
                ids += [_HEARD] * len(self._vectors)
                yield SoundPiece([*ids, *super().encode(hearing.END + after)], part.end_s)
        except PackError as error:
            raise Refused(error.message) from error

    def transcript(self, language: str | None = None) -> places.Transcript:
        """What takes the answer to one piece apart."""
        return places.Transcript(language)

    def generate(
        self,
        ids: list[int],
        most: int,
        sampling: dict[str, float],
        schema: str | None,
        on_token: OnToken,
    ) -> None:
        """Call `on_token` with every token until it says False, the turn ends, or `most` have
        come. Raises Refused for a schema."""
        if schema is not None:
            raise Refused("this model writes sound down and takes no JSON schema")
        super().generate(ids, most, sampling, None, on_token)

    def _run(self, ids: list[int], config: Any, streamer: Any) -> None:
        vectors = self._vectors if _HEARD in ids else None
        [pad] = super().encode(hearing.PAD)
        given = [pad if number == _HEARD else number for number in ids]
        tensor = openvino.Tensor(numpy.asarray([given], dtype=numpy.int64))
        self._pipeline.generate(tensor, config, streamer, vectors)
