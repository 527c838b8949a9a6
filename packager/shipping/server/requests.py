"""A request of /v1/chat/completions, checked whole before it waits for the engine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .attached import Attached
from .parsed import Parsed
from .prompts import messages_of, render, tools_of
from .refused import Refused
from .schemas import check
from .settings import Settings

# Any: the client's JSON, each field of which is looked at below before it is used.

_BOUNDS = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "top_k": (0.0, 1e6),
    "repetition_penalty": (0.01, 10.0),
    "seed": (0.0, 2**32 - 1),
}
_SEEDS: dict[float, float] = {0: 2**32 - 2, 2**32 - 1: 2**32 - 3}
"""Seeds that stand in for those that engines take for any."""
_WHOLE = ("top_k", "seed")
_MARK = re.compile(r"<\|?/?\w+\|?>")
"""A control token, such as <|im_end|> or </think>; whatever it is to a model, a token at least."""
_MOST_STOPS = 8
_STOP_CHARACTERS = 1024
"""Of a text that ends an answer: all its beginnings are looked for after each token."""


@dataclass(frozen=True)
class Request:
    """What is to be answered. `schema` is JSON's, of the whole answer; `opened` says that the
    prompt has opened a thought."""

    prompt: str
    opened: bool
    tools: list[Parsed]
    most: int
    sampling: dict[str, float]
    stops: tuple[str, ...]
    schema: str | None
    stream: bool
    usage: bool
    budget: int | None
    pictures: tuple[bytes, ...] = ()
    """The files of the pictures that the prompt has places for, in their order."""
    sound: bytes | None = None
    """The file of the sound that the prompt has a place for."""
    language: str | None = None
    """The name of the one that is spoken in the sound, where the client says so."""
    adapter: str | None = None
    """The adapter that answers with the model; None for the model alone."""


def parse(body: bytes, settings: Settings) -> Request:
    """The request in a body. Raises Refused with a sentence for whatever cannot be answered."""
    try:
        given = json.loads(body)
        # Half a letter of UTF-16 is not text, and no engine takes it.
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused("the request is not valid JSON") from None
    if not isinstance(given, dict):
        raise Refused("the request is not a JSON object")
    attached = Attached.to(settings)
    messages = messages_of(given.get("messages"), attached)
    tools = _tools(given)
    schema = _schema(given.get("response_format"), settings)
    sound = attached.sounds[0] if attached.sounds else None
    if sound is not None and (schema is not None or tools):
        raise Refused("a sound is written down: leave `response_format` and `tools` out")
    extra = given.get("chat_template_kwargs") or {}
    if not isinstance(extra, dict):
        raise Refused("`chat_template_kwargs` is not an object")
    if schema is not None:
        # A thought is no JSON: where the model can leave it out, it does.
        extra = {"enable_thinking": False, **extra}
    prompt = _prompt(settings, messages, tools, extra)
    _refuse_long(prompt, settings.context)
    if given.get("n") not in (None, 1):
        raise Refused("this server gives one answer to a request: leave `n` out")
    options = given.get("stream_options") or {}
    return Request(
        prompt=prompt,
        opened=prompt.rstrip().endswith("<think>"),
        tools=tools or list(settings.tools),
        most=_most(given),
        sampling=_drawn({**settings.sampling, **_sampling(given)}),
        stops=_stops(given.get("stop")),
        schema=schema,
        stream=_flag(given, "stream"),
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        budget=settings.thinking_budget,
        pictures=tuple(attached.pictures),
        sound=sound,
        adapter=_adapter(given.get("model"), settings),
    )


def _adapter(name: Any, settings: Settings) -> str | None:
    """The adapter that a request names as its model. Where there are none to choose from, the
    server has one model, whatever clients call it."""
    if not settings.choices or name in (None, settings.name):
        return None
    if not isinstance(name, str) or name not in settings.choices:
        known = ", ".join([settings.name, *settings.choices])
        raise Refused(f"there is no such model here: `model` is one of {known}", 404)
    return name


def _prompt(
    settings: Settings,
    messages: list[Parsed],
    tools: list[Parsed] | None,
    extra: Parsed,
) -> str:
    if not settings.template:
        raise Refused("this is a base model: it has no chat template")
    switches = {name: value for name, value in extra.items() if isinstance(value, bool | str)}
    for taken in ("messages", "tools", "add_generation_prompt"):
        switches.pop(taken, None)
    return render(settings.template, messages, **{**switches, "tools": tools})


def _refuse_long(prompt: str, context: int) -> None:
    """Refuse what cannot fit before it waits for its turn: llama.cpp took 17 s to cut a prompt of
    100,000 control tokens into tokens, and four times as long for twice as many."""
    least = sum(1 for _ in _MARK.finditer(prompt))
    if least >= context:
        raise Refused(f"the prompt has {least} tokens or more, but the context holds {context}")


def _tools(given: Parsed) -> list[Parsed] | None:
    choice = given.get("tool_choice", "auto")
    if choice not in ("auto", "none", None):
        raise Refused("this server lets the model choose: `tool_choice` is auto or none")
    tools = tools_of(given.get("tools"))
    return None if choice == "none" else tools


def _schema(form: Any, settings: Settings) -> str | None:
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return json.dumps({"type": "object"})
    if kind == "json_schema":
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if isinstance(schema, dict):
            text = json.dumps(schema)
            check(schema, text, settings.runtime)
            return text
    raise Refused("`response_format` is text, json_object, or json_schema with a `schema`")


def _most(given: Parsed) -> int:
    # Some clients send every field they know of, null where it is not set.
    most = given.get("max_completion_tokens")
    most = given.get("max_tokens") if most is None else most
    if most is None:
        return 1 << 30
    if type(most) is not int or most < 1:
        raise Refused("`max_tokens` is out of range")
    return most


def _sampling(given: Parsed) -> dict[str, float]:
    sampling = {}
    for name, (low, high) in _BOUNDS.items():
        value = given.get(name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or (name in _WHOLE and value != int(value)):
            raise Refused(f"`{name}` is out of range: it goes from {low:g} to {high:g}")
        sampling[name] = value
    return sampling


def _drawn(sampling: dict[str, float]) -> dict[str, float]:
    """The sampling as every engine takes it for what it is: to all of them a `top_p` of 0 is none,
    where it leaves the likeliest token alone, and a seed of 0 or of 32 set bits is any."""
    if sampling.get("top_p") == 0:
        sampling = {**sampling, "temperature": 0.0}
    if "seed" in sampling:
        sampling = {**sampling, "seed": _SEEDS.get(sampling["seed"], sampling["seed"])}
    return sampling


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused("`stop` is a text, or a list of texts")
    if len(stops) > _MOST_STOPS:
        raise Refused(f"`stop` has more than {_MOST_STOPS} texts")
    if any(len(stop) > _STOP_CHARACTERS for stop in stops):
        raise Refused(f"`stop` has a text of more than {_STOP_CHARACTERS} characters")
    return tuple(stops)


def _flag(given: Parsed, name: str) -> bool:
    value = given.get(name) or False
    if not isinstance(value, bool):
        raise Refused(f"`{name}` is true or false")
    return value
