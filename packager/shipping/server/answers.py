"""One answer: tokens from the engine as text, taken apart, stopped where the request or the client
says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .refused import Refused
from .replies import Piece, Splitter, call_of
from .settings import Settings

if TYPE_CHECKING:
    from .requests import Request

# Any in a call: the arguments that a model wrote, which only the client's tool can read.

OnToken = Callable[[int], bool]
"""Takes a token of an answer; False ends the answer."""
_CLOSING = "\n</think>\n\n"


class Engine(Protocol):
    """What a runtime's engine.py has."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""

    def generate(
        self,
        ids: list[int],
        most: int,
        sampling: dict[str, float],
        schema: str | None,
        on_token: OnToken,
    ) -> None:
        """Call `on_token` with every token until it says False."""


@runtime_checkable
class SeeingEngine(Protocol):
    """What the engine of a package that sees has besides."""

    def encode_pictures(self, prompt: str, pictures: Sequence[bytes]) -> list[int]:
        """Token ids of a prompt with pictures, whose tokens are negative numbers. Raises Refused
        for a file that is no picture, and a prompt that has not one place for each."""


class Transcript(Protocol):
    """What is said in a sound, of an answer that names its language first."""

    language: str | None

    def add(self, piece: str) -> str:
        """What is sure to be said with one more piece of the answer."""

    def end(self) -> str:
        """What is left at the end of the answer."""


@dataclass(frozen=True)
class SoundPiece:
    """The token ids of a prompt with a piece of a sound, which ends so many seconds from the
    beginning of the sound."""

    ids: list[int]
    end_s: float


@runtime_checkable
class HearingEngine(Protocol):
    """What the engine of a package that listens has besides."""

    languages: Mapping[str, str]
    """Those that it writes down, by their codes (ISO 639)."""

    def encode_sound(
        self, prompt: str, sound: bytes, language: str | None = None
    ) -> Iterator[SoundPiece]:
        """A prompt with a sound, once for each piece that the sound is cut into; `language` is the
        name of the one that is spoken, where that is known. Raises Refused for a file that is no
        sound, and a prompt that has not one place for it."""

    def transcript(self, language: str | None = None) -> Transcript:
        """What takes the answer to one piece apart."""


@runtime_checkable
class AdaptingEngine(Protocol):
    """What the engine has besides whose adapters are chosen with each request."""

    def choose(self, adapter: str | None) -> None:
        """Answer with the adapter of that name from now on; None: with the model alone."""


@dataclass
class Outcome:
    """What became of an answer; `calls` in OpenAI's form without their ids."""

    prompt_tokens: int
    new_tokens: int = 0
    finish: str = "length"
    # Any: JSON of an answer, in OpenAI's form.
    calls: list[dict[str, Any]] = field(default_factory=list)
    language: str | None = None
    """The one that the model named in a sound."""
    sound_s: float = 0.0
    """Seconds of a sound that were written down."""


class Queue:
    """Requests wait in the order they came; more than `room` waiting are turned away."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: list[object] = []
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, gone: Callable[[], bool]) -> Any:
        """The engine for one request. Raises Refused (503) when too many wait; Gone when the client
        left."""
        ticket = object()
        with self._changed:
            if len(self._waiting) > self._room:
                raise Refused("too many requests are waiting: try again later", 503)
            self._waiting.append(ticket)
        try:
            with self._changed:
                while self._waiting[0] is not ticket:
                    if gone():
                        raise Gone
                    self._changed.wait(0.2)
            yield
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()


class Gone(Exception):
    """The client has left; nobody waits for the answer."""


class Answer:
    """Run a request through the engine, handing on pieces as they are sure."""

    def __init__(self, engine: Engine, settings: Settings, request: Request) -> None:
        self._engine, self._settings, self._request = engine, settings, request
        self._splitter = Splitter(
            request.opened, bool(request.tools) or "<tool_call>" in request.prompt
        )
        self._pending: list[int] = []
        self._tail = ""
        self._stopped = False
        self._transcript: Transcript | None = None

    def run(self, on_piece: Callable[[Piece], None], gone: Callable[[], bool]) -> Outcome:
        """Answer whole. Raises Refused for a prompt that does not fit, Gone when the client
        left."""
        request = self._request
        if self._settings.choices:
            assert isinstance(self._engine, AdaptingEngine)
            self._engine.choose(request.adapter)
        if request.sound is not None:
            return self._written_down(request.sound, on_piece, gone)
        ids = self._ids()
        most = min(request.most, self._room(ids))
        outcome = Outcome(len(ids))
        said: list[int] = []
        thought = request.opened and (request.schema is not None or request.budget is not None)
        if thought:
            ids, said = self._think(ids, most, outcome, on_piece, gone)
            # What ends a thought takes its place in the context, too.
            room = self._settings.context - len(ids) - len(said)
            most = min(most, outcome.new_tokens + max(0, room))
        if outcome.new_tokens < most and not self._stopped:
            schema = request.schema if thought or not request.opened else None
            self._phase(
                ids + said, most - outcome.new_tokens, schema, outcome, on_piece, gone, None
            )
        self._pass(self._flush(), on_piece, outcome)
        for piece in self._splitter.end():
            on_piece(piece)
        ended = self._stopped or outcome.new_tokens < most
        outcome.finish = "stop" if ended else "length"
        if outcome.calls:
            outcome.finish = "tool_calls"
        return outcome

    def _room(self, ids: list[int]) -> int:
        """Tokens that an answer to a prompt may have. Raises Refused where there are none."""
        context = self._settings.context
        if len(ids) >= context:
            raise Refused(f"the prompt has {len(ids)} tokens, but the context holds {context}")
        return context - len(ids)

    def _written_down(
        self, sound: bytes, on_piece: Callable[[Piece], None], gone: Callable[[], bool]
    ) -> Outcome:
        """What is said in a sound, piece by piece; all of them share the answer's tokens."""
        engine = self._engine
        assert isinstance(engine, HearingEngine)
        outcome, language = Outcome(0, finish="stop"), self._request.language
        parts = engine.encode_sound(self._request.prompt, sound, language)
        for number, part in enumerate(parts):
            left = self._request.most - outcome.new_tokens
            if left < 1 or self._stopped:
                outcome.finish = "stop" if self._stopped else "length"
                break
            if number:
                self._say(" ", on_piece, outcome)
            most, before = min(left, self._room(part.ids)), outcome.new_tokens
            outcome.prompt_tokens += len(part.ids)
            self._transcript = engine.transcript(language)
            self._phase(part.ids, most, None, outcome, on_piece, gone, None)
            rest = self._engine.decode(self._pending) if self._pending else ""
            self._pending.clear()
            transcript, self._transcript = self._transcript, None
            self._say(transcript.add(rest) + transcript.end(), on_piece, outcome)
            outcome.language = outcome.language or transcript.language
            outcome.sound_s = part.end_s
            if outcome.new_tokens - before == most and not self._stopped:
                outcome.finish = "length"
        self._pass(self._flush(), on_piece, outcome)
        for piece in self._splitter.end():
            on_piece(piece)
        return outcome

    def _ids(self) -> list[int]:
        if not self._request.pictures:
            return self._engine.encode(self._request.prompt)
        assert isinstance(self._engine, SeeingEngine)
        return self._engine.encode_pictures(self._request.prompt, self._request.pictures)

    def _think(
        self,
        ids: list[int],
        most: int,
        outcome: Outcome,
        on_piece: Callable[[Piece], None],
        gone: Callable[[], bool],
    ) -> tuple[list[int], list[int]]:
        """The thought alone, which ends by itself or at the budget; then the prompt goes on behind
        it."""
        budget = min(self._request.budget or most, most)
        thought: list[int] = []
        text = ""

        def until(token: int) -> bool:
            nonlocal text
            thought.append(token)
            text = self._engine.decode(thought[-16:])
            return "</think>" not in text and len(thought) < budget

        self._phase(ids, budget, None, outcome, on_piece, gone, until)
        if "</think>" in text or self._stopped:
            return ids, thought
        closing = self._engine.encode(_CLOSING)
        self._pass(self._flush() + _CLOSING, on_piece, outcome)
        return ids, thought + closing

    def _phase(
        self,
        ids: list[int],
        most: int,
        schema: str | None,
        outcome: Outcome,
        on_piece: Callable[[Piece], None],
        gone: Callable[[], bool],
        until: Callable[[int], bool] | None,
    ) -> None:
        """Tokens until the turn ends, `until` says so, a stop text comes, or the client leaves."""
        left = False
        failed: list[BaseException] = []

        def on_token(token: int) -> bool:
            nonlocal left
            # What is raised here must not cross the engine's own threads.
            try:
                if gone():
                    left = True
                    return False
                outcome.new_tokens += 1
                self._pending.append(token)
                text = self._engine.decode(self._pending)
                if not text.endswith("\ufffd"):
                    self._pending.clear()
                    self._say(text, on_piece, outcome)
                more = until is None or until(token)
            except BaseException as error:
                failed.append(error)
                return False
            return more and not self._stopped

        self._engine.generate(ids, most, self._request.sampling, schema, on_token)
        if failed:
            raise failed[0]
        if left:
            raise Gone

    def _flush(self) -> str:
        """Bytes that never became a character, and text that was held back for a stop."""
        text = self._tail + (self._engine.decode(self._pending) if self._pending else "")
        self._pending.clear()
        self._tail = ""
        return text if not self._stopped else ""

    def _say(self, text: str, on_piece: Callable[[Piece], None], outcome: Outcome) -> None:
        if self._transcript is not None:
            text = self._transcript.add(text)
        self._pass(self._up_to_stop(text), on_piece, outcome)

    def _pass(self, text: str, on_piece: Callable[[Piece], None], outcome: Outcome) -> None:
        for piece in self._splitter.feed(text):
            call = call_of(piece.text, self._request.tools) if piece.kind == "call" else None
            if call is not None:
                outcome.calls.append(call)
            elif piece.kind == "call":
                # Nobody could carry it out: it is shown as what it is.
                on_piece(Piece("text", f"<tool_call>{piece.text}</tool_call>"))
            else:
                on_piece(piece)

    def _up_to_stop(self, text: str) -> str:
        """The text before a stop of the request's; its end is held back while it may begin one."""
        if not self._request.stops or self._stopped:
            return "" if self._stopped else text
        text = self._tail + text
        places = [place for stop in self._request.stops if (place := text.find(stop)) >= 0]
        if places:
            self._stopped, self._tail = True, ""
            return text[: min(places)]
        hold = max(
            (
                size
                for stop in self._request.stops
                for size in range(len(stop))
                if text.endswith(stop[:size])
            ),
            default=0,
        )
        self._tail = text[len(text) - hold :]
        return text[: len(text) - hold]
