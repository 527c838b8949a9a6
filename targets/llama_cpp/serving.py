"""A GGUF model behind the server of packager.shipping.server: one answer at a time, and what a
request has in common with the one before it is computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from packager.errors import PackError
from packager.json_values import JsonObject, at_or_none, object_or_empty
from packager.measure.speculation import proposer_of
from packager.pictures import prompt as places
from packager.pictures import take_data
from packager.scratch import temporary_folder
from packager.shipping.server.answers import SoundPiece
from packager.shipping.server.refused import Refused
from packager.shipping.server.settings import Settings
from packager.sounds import prompt as sound_places
from packager.sounds.pieces import parts_of
from targets.llama_cpp import speculation
from targets.llama_cpp.audio import AudioSession
from targets.llama_cpp.image_encoder import Chunk
from targets.llama_cpp.sampling import Sampler
from targets.llama_cpp.session import BATCH, Session
from targets.llama_cpp.vision import VisionSession

OnToken = Callable[[int], bool]


class Engine:
    """See packager.shipping.server.answers.Engine, SeeingEngine and HearingEngine. In the ids of a
    prompt, each token of a picture or sound is a negative number that stands for its content."""

    def __init__(self, settings: Settings, options: JsonObject, log: Path) -> None:
        """`options` are those of the session; `log` takes what the decoder of files prints."""
        self._session = _kind(settings)(str(settings.model.parent), dict(options))
        asked = object_or_empty(options, "speculation")
        self._width = at_or_none(asked, "drafted", int) or 0
        self._proposer = proposer_of(self._session, asked) if self._width else None
        self._log = log
        self._seconds = settings.audio_seconds
        self._ends = settings.ends or self._session.ends()
        self._kept: list[int] = []
        """What the engine's cache holds."""
        self._given: dict[int, tuple[JsonObject, int]] = {}
        """The pictures or pieces of sound of this request, and how many positions each takes."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt of text."""
        return self._session.encode(text)

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        return self._session.decode(ids)

    def encode_pictures(self, prompt: str, pictures: Sequence[bytes]) -> list[int]:
        """Token ids of a prompt with pictures. The pixels are kept until the next one's."""
        session = self._session
        assert isinstance(session, VisionSession)
        with temporary_folder() as folder:
            try:
                texts = places.around(prompt, len(pictures))
                taken = take_data(pictures, Path(folder), self._log)
                rows: list[JsonObject] = [
                    {**picture.as_dict(), "data": picture.path.read_bytes()} for picture in taken
                ]
                self._given = {}
                with session.encoder().chunks(texts, rows, count=True) as chunks:
                    return self._numbered(chunks, rows)
            except PackError as error:
                raise Refused(error.message) from error

    languages = sound_places.LANGUAGES

    def encode_sound(
        self, prompt: str, sound: bytes, language: str | None = None
    ) -> Iterator[SoundPiece]:
        """A prompt with each piece of a sound when it is its turn."""
        session = self._session
        assert isinstance(session, AudioSession)
        whole = session.window is not None
        try:
            for part in parts_of(prompt, sound, language, self._log, self._seconds, whole=whole):
                # Numbers of numpy, which go to the encoder as they are.
                piece: Any = part.samples
                rows: list[JsonObject] = [{"samples": piece}]
                self._given = {}
                with session.encoder().chunks(part.texts, rows) as chunks:
                    ids = self._numbered(chunks, rows)
                yield SoundPiece(ids, part.end_s)
        except PackError as error:
            raise Refused(error.message) from error

    def transcript(self, language: str | None = None) -> sound_places.Transcript:
        """What takes the answer to one piece apart."""
        return sound_places.Transcript(language)

    def _numbered(self, chunks: Sequence[Chunk], rows: Sequence[JsonObject]) -> list[int]:
        """The ids of a prompt; a sound has several chunks in a row, its windows."""
        ids: list[int] = []
        waiting = iter(rows)
        for text, run in groupby(chunks, lambda chunk: chunk.ids is not None):
            if text:
                ids += [token for chunk in run for token in chunk.ids or ()]
                continue
            row, parts = next(waiting), list(run)
            name = -1 - int.from_bytes(hashlib.sha256(_content(row)).digest()[:7], "big")
            self._given[name] = (row, sum(part.positions for part in parts))
            ids += [name] * sum(part.tokens for part in parts)
        return ids

    def generate(
        self,
        ids: list[int],
        most: int,
        sampling: dict[str, float],
        schema: str | None,
        on_token: OnToken,
    ) -> None:
        """Call `on_token` with every token until it says False, the turn ends, or `most` have
        come. Raises Refused for a schema that the engine does not take."""
        lib, vocab, context = self._session.handles()
        if ids[-1] < 0:
            raise Refused("no text follows the pictures or the sound")
        try:
            sampler = Sampler(lib, vocab, sampling, schema)
        except PackError as error:
            raise Refused(error.message) from error
        try:
            position = self._read(ids)
            if self._proposer is not None and min(ids) >= 0:
                self._speculate(ids, most, sampler, on_token)
                return
            done, self._kept = self._kept, []
            for number in range(most):
                token = sampler.next(context)
                if token in self._ends or not on_token(token):
                    break
                if number + 1 < most:
                    position = self._session.feed_at([token], position)
                    done.append(token)
            # Only here: after a failure nobody knows what the cache holds.
            self._kept = done
        finally:
            sampler.close()

    def _speculate(self, ids: list[int], most: int, sampler: Sampler, on_token: OnToken) -> None:
        """The same tokens as without, several drafted ones checked at once."""
        session, proposer = self._session, self._proposer
        assert proposer is not None
        _, _, context = session.handles()
        self._kept = []
        with session.stepping():
            answer = speculation.answer(
                session.checks(),
                sampler.next(context),
                ids,
                most,
                lambda tokens: proposer(tokens, self._width),
                self._ends,
                on_token,
                lambda row: sampler.next(context, row),
            )
        whole = [*ids, *answer.tokens]
        # What was drafted and right, but never said, goes.
        if answer.held <= len(whole) or session.keep_until(len(whole)):
            self._kept = whole[: answer.held]

    def _read(self, ids: list[int]) -> int:
        """Compute what the cache does not hold yet; the position after the prompt."""
        before, self._kept = self._kept, []
        begin = self._common(before, ids)
        changes = begin < len(before) or not begin
        if changes and not self._session.keep_until(self._position(ids[:begin])):
            begin = 0
        position = self._position(ids[:begin])
        for name, length in _runs(ids[begin:]):
            if name is None:
                position = self._session.feed_at(ids[begin : begin + length], position)
            else:
                position = self._look(name, position)
            begin += length
        self._kept = list(ids)
        return position

    def _common(self, before: list[int], ids: list[int]) -> int:
        """How many of the first ids need not be computed: never the last, whose result is wanted,
        nor a part of a picture."""
        most = min(len(before), len(ids) - 1)
        begin = next((place for place in range(most) if before[place] != ids[place]), most)
        while begin and ids[begin] < 0 and ids[begin - 1] == ids[begin]:
            begin -= 1
        return begin

    def _position(self, ids: list[int]) -> int:
        """The position after some ids: a picture takes fewer than it has tokens."""
        return sum(length if name is None else self._given[name][1] for name, length in _runs(ids))

    def _look(self, name: int, position: int) -> int:
        """Put a picture or a piece of sound into the cache; the position after it."""
        session = self._session
        assert isinstance(session, VisionSession | AudioSession)
        encoder = session.encoder()
        _, _, context = session.handles()
        with encoder.chunks(["", ""], [self._given[name][0]]) as chunks:
            for part in (chunk for chunk in chunks if chunk.ids is None):
                buffer, _ = encoder.encode(part)
                position = encoder.decode(context, part, buffer, position, BATCH)
        return position


def _kind(settings: Settings) -> type[Session]:
    if settings.hears:
        return AudioSession
    return VisionSession if settings.sees else Session


def _content(row: JsonObject) -> bytes:
    """What tells one picture or sound from another: two of the same pixels may have other sides."""
    data: Any = row.get("data")
    if data is None:
        samples: Any = row["samples"]
        return bytes(samples.tobytes())
    return f"{row['width']} {row['height']} ".encode() + bytes(data)


def _runs(ids: Sequence[int]) -> Iterator[tuple[int | None, int]]:
    """Runs of text (None) and of single pictures, with their lengths."""
    for name, run in groupby(ids, lambda number: number if number < 0 else None):
        yield name, len(list(run))
