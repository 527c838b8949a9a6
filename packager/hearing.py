"""What runtimes and sessions have besides where packages take sound; see packager.runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from packager.session import Session

if TYPE_CHECKING:
    import numpy.typing


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of a sound."""

    tokens: list[int]
    """Those of the answer."""
    prompt_tokens: int
    """Text and sound together, as they stand in the context."""
    audio_tokens: int
    """Those of the sound among them."""
    encode_s: float
    """Seconds that the audio encoder took."""


@runtime_checkable
class Hears(Protocol):
    """What a Runtime has besides where it builds audio encoders, whose packages take sound."""

    projector: str
    """The name of the encoder's file in the artifact."""
    audio_session: str
    """`module:class` of its AudioSession."""


@runtime_checkable
class HearsApart(Protocol):
    """What a Runtime that Hears has besides where the file of its audio encoder is called otherwise
    than that of its vision tower, and where its packages take sound on some units alone."""

    audio_projector: str
    """The name of the encoder's file in the artifact."""
    sounds_on: tuple[str, ...]
    """The units of a device (cpu, gpu, npu) on which its packages are known to take sound."""


def encoder_file(runtime: Hears) -> str:
    """The name of the file of an artifact that holds the audio encoder."""
    return runtime.audio_projector if isinstance(runtime, HearsApart) else runtime.projector


@runtime_checkable
class AudioSession(Session, Protocol):
    """A Session that takes sound besides: samples as float32, 16,000 a second. The audio encoder is
    loaded when the first of them comes."""

    def open_encoder(self) -> float:
        """Load the audio encoder, where that was not done yet; seconds that it took."""

    def audio_tokens(self, count: int) -> int:
        """Tokens that so many samples take."""

    def answer_logits(
        self,
        texts: Sequence[str],
        embeddings: numpy.typing.NDArray[numpy.float32],
        count: int,
        follow: Sequence[int] = (),
    ) -> tuple[numpy.typing.NDArray[numpy.float32], list[int]]:
        """(count, vocabulary) of logits of the first tokens of an answer behind a text, vectors in
        place of a sound, and another text; and the likeliest tokens. Each is fed with the one of
        `follow` before it, where there are so many, else with the likeliest."""

    def encode_audio(self, samples: numpy.typing.NDArray[numpy.float32]) -> float:
        """Encode a sound; seconds that the encoder took, features left out."""

    def embed_audio(
        self, samples: numpy.typing.NDArray[numpy.float32]
    ) -> numpy.typing.NDArray[numpy.float32]:
        """(tokens, width) of what the encoder hands to the decoder."""

    def hear(
        self,
        texts: Sequence[str],
        samples: numpy.typing.NDArray[numpy.float32],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Heard:
        """Decode greedily from a cold cache behind a text, a sound and another text. Otherwise as
        `Session.generate`."""
