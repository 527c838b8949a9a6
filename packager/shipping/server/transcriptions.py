"""Requests of /v1/audio/transcriptions: a form with the file of a sound, as OpenAI's clients send
it, and what is said in it back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import forms
from .answers import Answer, Engine, HearingEngine, Outcome
from .prompts import render
from .refused import Refused
from .replies import Piece
from .requests import Request
from .settings import Settings

if TYPE_CHECKING:
    from .connections import JsonHandler

_FORMS = ("json", "text", "verbose_json")
_NOT_GIVEN = {
    "timestamp_granularities": "the times of words",
    "include": "the probabilities of tokens",
    "known_speaker_names": "who speaks",
    "known_speaker_references": "who speaks",
}
"""Fields that ask for what the models do not say."""
_KEYWORDS = ("keywords", "keywords[]")
_CONTROL = re.compile(r"<\|\w{1,40}\|>|<asr_text>")
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class Asked:
    """A sound that is to be written down; `form` is one of `response_format`'s."""

    request: Request
    form: str


def check(settings: Settings) -> None:
    """Raises Refused for a package that writes no sound down."""
    if settings.asked:
        raise Refused(
            "this model answers questions about a sound and writes none down: send the sound with "
            "a question to /v1/chat/completions"
        )
    if not settings.hears:
        raise Refused("this model takes no sound: a package of `--use-case audio` writes it down")


def parse(content_type: str, body: bytes, settings: Settings, engine: HearingEngine) -> Asked:
    """The request in a body. Raises Refused with a sentence for whatever cannot be answered."""
    form = forms.read(content_type, body)
    _refuse_others(form)
    sounds = form.files.get("file", [])
    if len(sounds) != 1:
        raise Refused(f"the form has {len(sounds)} sounds in `file`: send one, with its name")
    stream = _flag(form.text("stream"))
    kind = form.text("response_format") or "json"
    if kind not in _FORMS or (stream and kind != "json"):
        takes = "json where `stream` is true" if stream else ", ".join(_FORMS)
        raise Refused(f"`response_format` is {takes}: this model gives no times of what is said")
    temperature = _temperature(form.text("temperature"))
    request = Request(
        prompt=_prompt(settings, _context(form)),
        opened=False,
        tools=[],
        most=_NO_LIMIT,
        # The likeliest words, unless chance is asked for.
        sampling={**(settings.sampling if temperature else {}), "temperature": temperature},
        stops=(),
        schema=None,
        stream=stream,
        usage=True,
        budget=None,
        sound=sounds[0],
        language=_language(form.text("language"), engine),
    )
    return Asked(request, kind)


def _refuse_others(form: forms.Form) -> None:
    """A field that would change the answer is not passed over."""
    for name in form.fields:
        plain = name.partition("[")[0]
        if plain in _NOT_GIVEN and any(form.fields[name]):
            raise Refused(f"`{plain}` asks for {_NOT_GIVEN[plain]}, which this model does not say")
    if any(form.fields.get("chunking_strategy", [])) and form.text("chunking_strategy") != "auto":
        raise Refused("`chunking_strategy` is auto: a long sound is cut where it is quiet")
    if any(name.startswith("chunking_strategy[") for name in form.fields):
        raise Refused("`chunking_strategy` is auto: a long sound is cut where it is quiet")


def _context(form: forms.Form) -> str:
    """Names and words that may occur in the sound."""
    words = [word for name in _KEYWORDS for word in form.fields.get(name, [])]
    given = [form.text("prompt") or "", ", ".join(words)]
    context = "\n".join(text for text in given if text)
    written = _CONTROL.search(context)
    if written is not None:
        name = "prompt" if written[0] in given[0] else "keywords"
        raise Refused(f"`{name}` writes {written[0]} itself: leave it out")
    return context


def _prompt(settings: Settings, context: str) -> str:
    if not settings.template:
        raise Refused("this is a base model: it has no chat template")
    sound = {"role": "user", "content": [{"type": "audio", "audio": ""}]}
    before = [{"role": "system", "content": context}] if context else []
    return render(settings.template, [*before, sound], enable_thinking=False)


def _language(given: str | None, engine: HearingEngine) -> str | None:
    if not given:
        return None
    wanted = given.strip().casefold()
    for code, name in engine.languages.items():
        if wanted in (code, name.casefold()):
            return name
    raise Refused(f"`language` is one of {', '.join(engine.languages)}, or left out")


def _temperature(given: str | None) -> float:
    if not given:
        return 0.0
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise Refused("`temperature` is out of range: it goes from 0 to 1")
    return value


def _flag(given: str | None) -> bool:
    if (given or "false").lower() not in ("true", "false"):
        raise Refused("`stream` is true or false")
    return (given or "").lower() == "true"


class Reply:
    """What is said, whole, or in events as it is written down."""

    def __init__(
        self, handler: JsonHandler, asked: Asked, engine: Engine, settings: Settings
    ) -> None:
        self._handler, self._asked = handler, asked
        self._answer = Answer(engine, settings, asked.request)
        self._texts: list[str] = []
        self._begun = False

    def give(self) -> None:
        """Answer. Raises Refused and answers.Gone."""
        handler, stream = self._handler, self._asked.request.stream
        on_piece: Callable[[Piece], None] = self._event if stream else self._keep
        outcome = self._answer.run(on_piece, handler.gone)
        said = self._whole(outcome)
        if stream:
            self._begin()
            handler.event({"type": "transcript.text.done", **said})
        else:
            handler.send(200, said["text"] if self._asked.form == "text" else said)

    def _keep(self, piece: Piece) -> None:
        self._texts.append(piece.text)

    def _event(self, piece: Piece) -> None:
        self._begin()
        self._texts.append(piece.text)
        self._handler.event({"type": "transcript.text.delta", "delta": piece.text})

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._handler.begin_events()

    def _whole(self, outcome: Outcome) -> dict[str, object]:
        """OpenAI's object, and why it ended: `length` where the context was full."""
        said: dict[str, object] = {
            "text": "".join(self._texts).strip(),
            "finish_reason": outcome.finish,
        }
        if self._asked.form == "verbose_json":
            heard = {"task": "transcribe", "duration": outcome.sound_s}
            usage: dict[str, object] = {"type": "duration", "seconds": outcome.sound_s}
            return {**heard, "language": outcome.language or "", **said, "usage": usage}
        total = outcome.prompt_tokens + outcome.new_tokens
        counted = {"input_tokens": outcome.prompt_tokens, "output_tokens": outcome.new_tokens}
        return {**said, "usage": {"type": "tokens", **counted, "total_tokens": total}}
