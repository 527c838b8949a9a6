"""Sounds that are parts of chat messages, sent by OpenAI's own client, and what is refused."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import pytest

from packager.shape.audio import RATE
from packager.sounds.made import made
from tests.support.audio import claiming
from tests.support.serving import client_of


def data(samples: Any, form: str = "wav", **how: Any) -> bytes:
    """A file of samples, 16,000 a second."""
    soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format=form.upper(), **how)
    return out.getvalue()


def asking(*sounds: bytes, form: str = "wav") -> list[Any]:
    """A turn with sounds and a sentence behind them."""
    parts: list[Any] = [
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(one).decode(), "format": form},
        }
        for one in sounds
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Write it."}]}]


def check_spoken_messages(address: str, expected: str) -> None:
    """What a server of a package with random weights, for eight seconds of sound at once and a
    context of 256, answers over /v1/chat/completions; `expected` are the first six tokens that
    `run` says to five seconds."""
    openai = pytest.importorskip("openai")
    greedy: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 6}
    create = client_of(address).chat.completions.create
    for _ in range(2):
        answer = create(messages=asking(data(made(5))), **greedy)
        assert answer.choices[0].message.content == expected
        # Five seconds of 13 tokens each.
        assert 65 < answer.usage.prompt_tokens < 96
        create(messages=asking(data(made(5, 1), "flac"), form="flac"), **greedy)
    pieces = create(messages=asking(data(made(5))), stream=True, **greedy)
    told = [piece.choices[0] for piece in pieces if piece.choices]
    assert "".join(one.delta.content or "" for one in told) == expected
    # Two pieces, each of which an answer that does not end fills the context behind.
    answer = create(messages=asking(data(made(11))), model="any", temperature=0)
    assert answer.usage.prompt_tokens > 143
    assert answer.choices[0].finish_reason == "length"
    for messages, sentence in _refused():
        with pytest.raises(openai.BadRequestError, match=sentence):
            create(messages=messages, **greedy)
    with pytest.raises(openai.BadRequestError, match="a sound is written down"):
        form = {"type": "json_object"}
        create(messages=asking(data(made(2))), response_format=form, **greedy)
    answer = create(messages=asking(data(made(5))), **greedy)
    assert answer.choices[0].message.content == expected


def _refused() -> list[tuple[list[Any], str]]:
    """Messages, and what the sentence says that each is refused with."""
    sound, broken = data(made(2)), made(2)
    broken[RATE] = math.nan
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    return [
        (asking(sound[: len(sound) // 2]), "the sound is truncated"),
        (asking(data(broken, subtype="FLOAT")), "not valid numbers"),
        (asking(b""), "the sound is empty"),
        (asking(b"\x89PNG\r\n\x1a\n" + bytes(64)), "the sound is a picture"),
        (asking(b"\0\0\0\x18ftypM4A " + bytes(64)), "a video or an MP4 sound"),
        (asking(sound + b"PK\x05\x06" + bytes(18)), "and a Zip archive at once"),
        (asking(data(made(1)[:0])), "has no samples"),
        (asking(claiming(3_600), form="flac"), "the sound is longer than 60 minutes"),
        (asking(sound, sound), "more than one sound"),
        (asking(sound, form="aac"), "another format than wav, mp3"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "without `data`"),
        ([{"role": "user", "content": [picture]}], "was built for text and sound"),
    ]
