"""The JSON schema of a request, bounded before an engine makes a grammar of it.

llama.cpp writes a repetition out, calls itself once for each, and follows every way through what
may be left out; ONNX Runtime has a place for every item of a list, OpenVINO one for every item of
repetitions within each other. A schema of a few bytes would end the server that way, or keep it
busy for hours, and no other request would be answered meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .refused import Refused

# Any: the client's JSON.


@dataclass(frozen=True)
class Bounds:
    """What an engine takes: how often something may repeat itself, once and in all, and what such
    numbers are called in a schema; parts of a pattern that may be left out, None for any number of
    them, repeated ones too."""

    times: int
    in_all: int
    counts: tuple[str, ...]
    optional: int | None


_OF_LISTS = ("minItems", "maxItems", "minProperties", "maxProperties")
LLAMA_CPP = Bounds(4096, 1 << 15, ("minLength", "maxLength", *_OF_LISTS), 16)
"""Version 0.3.36 takes about a thousand repetitions, refuses more, and dies of twenty thousand.
With 50 parts that may be left out it took 4 s for each token of a vocabulary of 2,048, with 100
more than a minute."""
OTHERS = Bounds(1 << 16, 1 << 18, _OF_LISTS, None)
"""ONNX Runtime 0.18 asks for 48 bytes for each item that a list must have; OpenVINO 2026.4 took
13 s and 1.3 GB for ((a{900}){900}){900}."""
MOST_BYTES = 1 << 16
"""Of a schema, as JSON."""
_KIND = re.compile(r"\(\?(?:<[=!]|P?<[^>]{0,99}>|[=!]|[a-z-]*:?)")
"""The begin of a group of another kind than the usual."""
_TIMES = re.compile(r"\{ *+(\d*+) *+(?:(,) *+(\d*+) *+)?+\}")
"""Nothing of it is tried twice: it is held against what a client sends."""


def check(schema: dict[str, Any], text: str, runtime: str) -> None:
    """Raise Refused for a schema, which is `text` as JSON, that takes that engine too much to
    follow."""
    bounds = LLAMA_CPP if runtime == "llama.cpp" else OTHERS
    if len(text) > MOST_BYTES:
        raise Refused(f"the schema of `response_format` is longer than {MOST_BYTES} characters")
    in_all = 0.0
    for part in _objects(schema):
        counts = [part[name] for name in bounds.counts if isinstance(part.get(name), int | float)]
        for pattern in _patterns(part):
            counts += _counts_of(pattern, bounds)
        for count in counts:
            # What is not a number is below nothing.
            if not count <= bounds.times:
                raise Refused(
                    f"the schema of `response_format` repeats something {count:g} times: "
                    f"{bounds.times} is the most here"
                )
            in_all += max(0, count)
    if in_all > bounds.in_all:
        raise Refused(
            f"the schema of `response_format` repeats {in_all:g} parts: {bounds.in_all} is the "
            "most here"
        )


def _objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        held = value.values() if isinstance(value, dict) else value
        waiting += [one for one in held if isinstance(one, dict | list)]


def _patterns(part: dict[str, Any]) -> list[str]:
    by_name = part.get("patternProperties")
    own = part.get("pattern")
    return [*(by_name if isinstance(by_name, dict) else ()), *([own] if type(own) is str else ())]


def _counts_of(pattern: str, bounds: Bounds) -> list[float]:
    """How often a pattern repeats its parts, those of repeated groups multiplied. Raises Refused
    for one in which what may be empty is repeated, or too much is optional."""
    found = _Ways(pattern)
    if bounds.optional is None:
        return found.times
    if found.empty_repeated:
        raise Refused(
            "a `pattern` of the schema repeats what may be empty, like (a?)*: write it without"
        )
    if found.optional > bounds.optional:
        raise Refused(
            f"a `pattern` of the schema has {found.optional} parts that may be left out: "
            f"{bounds.optional} is the most here"
        )
    return found.times


@dataclass
class _Group:
    """What was read of an open group: whether one of its alternatives may be empty, whether all
    before the last part of this one may, and how often it repeats something at most."""

    any_empty: bool = False
    all_empty: bool = True
    times: float = 1


class _Ways:
    """What of a regular expression may be left out, and how often parts are repeated; read as far
    as that needs, so that what no engine takes is left to the engine."""

    def __init__(self, pattern: str) -> None:
        self.optional, self.empty_repeated = 0, False
        self.times: list[float] = []
        self._open: list[_Group] = []
        self._group = _Group()
        # Whether the last part may be empty, how often it repeats something; whether it ends with
        # a sign of repetition.
        self._empty, self._of_last, self._repeated = True, 1.0, False
        at = 0
        while at < len(pattern):
            at = self._read(pattern, at)

    def _read(self, pattern: str, at: int) -> int:
        """Take what stands there; where the next begins."""
        sign = pattern[at]
        times = _TIMES.match(pattern, at) if sign == "{" else None
        before, self._repeated = self._repeated, sign in "*+?" or times is not None
        if sign == "?" and before:
            return at + 1  # as few as possible: the same words
        if sign in "*+?":
            self._repeat(0 if sign in "*?" else 1, 1 if sign == "?" else None)
        elif times is not None:
            # Not int: Python makes no number of thousands of digits.
            least = float(times[1] or 0)
            most = float(times[3]) if times[3] else None
            self._repeat(least, most if times[2] else least)
            return times.end()
        elif sign == "(":
            self._part(empty=True)
            self._open.append(self._group)
            self._group, self._empty = _Group(), True
            kind = _KIND.match(pattern, at)
            return kind.end() if kind else at + 1
        elif sign == ")" and self._open:
            self._alternative()
            self._empty, self._of_last = self._group.any_empty, self._group.times
            self._group = self._open.pop()
        elif sign == "|":
            self._alternative()
        elif sign == "[":
            self._part(empty=False)
            return _after_class(pattern, at)
        else:
            self._part(empty=sign in "^$" or pattern[at : at + 2] in (r"\b", r"\B"))
            return at + 1 + (sign == "\\")
        return at + 1

    def _part(self, *, empty: bool) -> None:
        """Another part begins, which may be empty or not."""
        group = self._group
        group.all_empty = group.all_empty and self._empty
        group.times = max(group.times, self._of_last)
        self._empty, self._of_last = empty, 1.0

    def _alternative(self) -> None:
        """An alternative of the group ends."""
        self._part(empty=True)
        self._group.any_empty = self._group.any_empty or self._group.all_empty
        self._group.all_empty = True

    def _repeat(self, least: float, most: float | None) -> None:
        """The last part is repeated, up to `most` times; None without an end."""
        if self._empty and most not in (0, 1):
            self.empty_repeated = True
        if least == 0:
            self.optional += 1
            self._empty = True
        if (most or least) > 1:
            self._of_last *= most or least
            self.times.append(self._of_last)


def _after_class(pattern: str, at: int) -> int:
    """Behind the bracket that closes the one at that place."""
    at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1
