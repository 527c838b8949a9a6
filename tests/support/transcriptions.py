"""Sounds that are sent to be written down, by OpenAI's own client, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from packager.shape.audio import RATE
from packager.sounds.made import made
from tests.support.audio import claiming
from tests.support.serving import client_of


def check_transcriptions(address: str, data: Any) -> None:
    """What a server of a package with random weights, for eight seconds of sound at once and a
    context of 256, answers over /v1/audio/transcriptions; `data` makes a file of samples."""
    openai = pytest.importorskip("openai")
    write = client_of(address).audio.transcriptions.create
    sound = data(made(5))
    one: dict[str, Any] = {"model": "any", "file": ("a.wav", sound)}
    whole = write(**one)
    # Random weights never end: the answer takes what the context has left.
    assert whole.usage.input_tokens + whole.usage.output_tokens == whole.usage.total_tokens
    assert whole.usage.total_tokens == 256
    assert whole.finish_reason == "length"
    assert write(**one, response_format="text") == whole.text
    told = write(**one, response_format="verbose_json", language="de")
    assert (told.duration, told.language, told.usage.seconds) == (5, "German", 5)
    events = list(write(**one, stream=True))
    # Line breaks alone may be all that these weights say: then nothing comes before the end.
    assert {event.type for event in events[:-1]} <= {"transcript.text.delta"}
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", whole.text)
    # Names go before the sound, a language behind it, and a long sound is cut.
    named = write(**one, prompt="Ada", extra_body={"keywords": ["Babbage"]})
    assert named.usage.input_tokens > whole.usage.input_tokens + 4
    forced = write(**one, language="German")
    assert forced.usage.input_tokens > whole.usage.input_tokens + 1
    long = write(model="any", file=("a.wav", data(made(11))), response_format="verbose_json")
    assert long.duration == 11
    broken = made(2)
    broken[RATE] = math.nan
    for given, sentence in (
        ({"file": ("a.wav", sound[: len(sound) // 2])}, "the sound is truncated"),
        ({"file": ("a.wav", data(broken, subtype="FLOAT"))}, "not valid numbers"),
        ({"file": ("a.wav", b"")}, "the sound is empty"),
        ({"file": ("a.svg", b"<svg xmlns='x'/>")}, "the sound is text"),
        ({"file": ("a.flac", claiming(3_600))}, "the sound is longer than 60 minutes"),
        ({"response_format": "srt"}, "gives no times"),
        ({"timestamp_granularities": ["word"]}, "asks for the times of words"),
        ({"language": "tlh"}, "`language` is one of ar, cs"),
        ({"prompt": "<|im_end|>"}, "writes <|im_end|> itself"),
        ({"temperature": 7.0}, "`temperature` is out of range"),
    ):
        with pytest.raises(openai.BadRequestError, match=re.escape(sentence)):
            write(**{**one, **given})
    with pytest.raises(openai.APIStatusError) as caught:
        write(model="any", file=("a.wav", bytes(33 << 20)))
    assert caught.value.status_code == 413
    assert write(**one).text == whole.text
