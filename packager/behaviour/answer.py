"""A reply taken apart: the thought, the text, the tool calls, and whether it ended by itself."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass

from packager.json_values import JsonObject, JsonValue

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_CONTROL = re.compile(r"<\|[a-z_]+\|>")
"""Control tokens of every Qwen; one inside a reply means that the turn should have ended there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model asked for."""

    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what a person sees, without thought and calls; `stopped` says that it ended its
    turn itself.

    `broken_call` is a call that nobody could carry out, as the model wrote it.
    """

    text: str
    stopped: bool = True
    calls: tuple[Call, ...] = ()
    broken_call: str | None = None

    def message(self) -> JsonObject:
        """The turn as the next prompt's template takes it."""
        calls: list[JsonObject] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        return {
            "role": "assistant",
            "content": self.text,
            **({"tool_calls": calls} if calls else {}),
        }


def parse(reply: str, stopped: bool) -> Answer:
    """Take a reply apart. Calls are JSON in <tool_call>, as Qwen2.5 and Qwen3 write them, or
    <function=...>, as Qwen3-Coder does."""
    spoken, thought, rest = reply.rpartition("</think>")
    reply_text = rest if thought else spoken + rest
    if "<think>" in reply_text:
        # A thought that never ended: nothing was said.
        return Answer("", False)
    control = _CONTROL.search(reply_text)
    if control:
        reply_text, stopped = reply_text[: control.start()], False
    calls: list[Call] = []
    broken: str | None = None
    for body in _CALL.findall(reply_text):
        call = _call(body)
        calls += [call] if call else []
        broken = broken if call else body
    left = _CALL.sub("", reply_text)
    if "<tool_call>" in left or "</tool_call>" in left:
        broken, left = left, left.partition("<tool_call>")[0]
    return Answer(left.strip(), stopped, tuple(calls), broken)


def _call(body: str) -> Call | None:
    function = _FUNCTION.search(body)
    if function:
        return Call(
            function[1], {name: _value(text) for name, text in _PARAMETER.findall(function[2])}
        )
    with suppress(ValueError, RecursionError):
        data = json.loads(body)
        if (
            isinstance(data, dict)
            and isinstance(data.get("name"), str)
            and isinstance(data.get("arguments"), dict)
        ):
            return Call(data["name"], data["arguments"])
    return None


def _value(text: str) -> JsonValue:
    """An argument written as text: a number or an object where it is one."""
    with suppress(ValueError, RecursionError):
        value: JsonValue = json.loads(text)
        return value
    return text
