"""A reply taken apart while it is being written: thought, text, tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .parsed import Parsed

# Any: JSON that a model wrote, and schemas that a client sent.

_OPEN, _CLOSE = "<think>", "</think>"
_CALL, _CALLED = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """`kind` is thought, text or call; the text of a call is what stands between its tags."""

    kind: str
    text: str


@dataclass
class Splitter:
    """Feed it text as it comes; it gives back pieces as they are sure.

    A tag may arrive in parts, so an end that could be the begin of one is held back. `thinking`
    says that the prompt has opened a thought already; `calls` that tool calls are to be looked for.
    """

    thinking: bool
    calls: bool
    _held: str = ""
    _kind: str = field(init=False)
    _start: bool = True

    def __post_init__(self) -> None:
        self._kind = "thought" if self.thinking else "text"

    def feed(self, text: str) -> Iterator[Piece]:
        """Pieces that are sure."""
        self._held += text
        while True:
            tag = self._next_tag()
            if tag is None:
                break
            before, _, self._held = self._held.partition(tag)
            if self._kind == "call":
                yield Piece("call", before)
            else:
                # The line breaks between text and tags belong to neither.
                yield from self._said(before.rstrip("\n"))
            self._kind = {_OPEN: "thought", _CALL: "call"}.get(tag, "text")
            self._start = True
        if self._kind != "call":
            sure = len(self._held) - self._unsure()
            ready, self._held = self._held[:sure], self._held[sure:]
            yield from self._said(ready)

    def end(self) -> Iterator[Piece]:
        """What was held back; a call that never ended is shown as the text that it is."""
        left, self._held = self._held, ""
        if self._kind == "call":
            self._kind, left = "text", _CALL + left
            self._start = False
        yield from self._said(left)

    def _said(self, text: str) -> Iterator[Piece]:
        if self._start:
            text = text.lstrip("\n")
        if text:
            self._start = False
            yield Piece(self._kind, text)

    def _tags(self) -> tuple[str, ...]:
        if self._kind == "thought":
            return (_CLOSE,)
        if self._kind == "call":
            return (_CALLED,)
        return (_OPEN, _CALL) if self.calls else (_OPEN,)

    def _next_tag(self) -> str | None:
        places = [(self._held.find(tag), tag) for tag in self._tags()]
        return min(((place, tag) for place, tag in places if place >= 0), default=(0, None))[1]

    def _unsure(self) -> int:
        """Characters at the end that may belong to a tag, or to line breaks before one."""
        for size in range(min(len(self._held), 12), 0, -1):
            if any(tag.startswith(self._held[-size:]) for tag in self._tags()):
                rest = self._held[:-size]
                return size + len(rest) - len(rest.rstrip("\n"))
        return len(self._held) - len(self._held.rstrip("\n"))


def call_of(body: str, tools: list[Parsed]) -> Parsed | None:
    """A tool call as OpenAI's protocol has it, without its id; None for one that nobody could carry
    out.

    It is JSON as Qwen2.5 and Qwen3 write it, or <function=...> as Qwen3-Coder and Qwen3.5 do.
    """
    match = _FUNCTION.search(body)
    if match:
        types = _types(match[1], tools)
        arguments = {
            name: _value(text, types.get(name)) for name, text in _PARAMETER.findall(match[2])
        }
        return _as_call(match[1], arguments)
    try:
        data = json.loads(body)
        if isinstance(data["name"], str) and isinstance(data["arguments"], dict):
            return _as_call(data["name"], data["arguments"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _types(name: str, tools: list[Parsed]) -> Parsed:
    """What the tool of that name says of the types of its arguments, as far as that is a schema."""
    functions = (tool["function"] for tool in tools)
    given = next((one.get("parameters") for one in functions if one["name"] == name), None)
    rows = given.get("properties") if isinstance(given, dict) else None
    return {
        argument: entry.get("type")
        for argument, entry in (rows if isinstance(rows, dict) else {}).items()
        if isinstance(entry, dict)
    }


def _as_call(name: str, arguments: Parsed) -> Parsed:
    text = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": name, "arguments": text}}


def _value(text: str, kind: Any) -> Any:
    """An argument written as text: what its schema calls a string stays one."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
