"""What is said in a sound, piece by piece, by a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from packager.errors import usage
from packager.hearing import AudioSession, Heard
from packager.json_values import JsonObject, at
from packager.sounds.cut import pieces
from packager.sounds.prompt import Transcript

BRACKETS = 2
"""Tokens that the session sets around a sound."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a sound, in samples, and what was made of it; `most` is what its answer could
    have."""

    start: int
    end: int
    heard: Heard
    most: int


@dataclass
class Dictated:
    """A whole sound. `ended` says that the answer to every piece ended by itself."""

    parts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    audio_tokens: int = 0
    encode_s: float = 0.0
    language: str | None = None
    ended: bool = True

    @property
    def text(self) -> str:
        """What is said in it."""
        return " ".join(part for part in self.parts if part)

    def add(self, piece: Piece, transcript: Transcript) -> None:
        """One more piece."""
        heard = piece.heard
        self.parts.append(transcript.said.strip())
        self.tokens += heard.tokens
        self.prompt_tokens += heard.prompt_tokens
        self.audio_tokens += heard.audio_tokens
        self.encode_s += heard.encode_s
        self.language = self.language or transcript.language
        self.ended = self.ended and len(heard.tokens) < piece.most


def heard_pieces(
    model: AudioSession,
    texts: Sequence[str],
    sound: JsonObject,
    seconds: int,
    context: int,
    most: int,
    on_token: Callable[[int], None],
) -> Iterator[Piece]:
    """A sound (packager.sounds.Samples) in pieces of at most `seconds`, each with the same text
    before and after it and from a cold cache, and with an answer of at most `most` tokens."""
    # Late: numpy, for the child that listens.
    import numpy as np

    samples = np.memmap(at(sound, "path", str), "<f4", "r")
    around = sum(len(model.encode(text)) for text in texts)
    for start, end in pieces(samples, seconds):
        tokens = around + BRACKETS + model.audio_tokens(end - start)
        room = room_for(tokens, context, most)
        heard = model.hear(texts, np.array(samples[start:end]), room, on_token)
        yield Piece(start, end, heard, room)


def written_down(
    model: AudioSession,
    texts: Sequence[str],
    sound: JsonObject,
    seconds: int,
    context: int,
    most: int,
) -> Dictated:
    """The whole sound at once; see `heard_pieces`."""
    whole = Dictated()
    for piece in heard_pieces(model, texts, sound, seconds, context, most, lambda _: None):
        transcript = Transcript()
        if piece.heard.tokens:
            transcript.add(model.decode(piece.heard.tokens))
        transcript.end()
        whole.add(piece, transcript)
    return whole


def room_for(prompt_tokens: int, context: int, wanted: int) -> int:
    """How many tokens the answer may have. Raises PackError (usage) where none are left."""
    room = context - prompt_tokens
    if room < 1:
        raise usage(
            f"The prompt has {prompt_tokens} tokens and the package's context is {context}.",
            "Shorten it.",
        )
    return min(wanted, room)
