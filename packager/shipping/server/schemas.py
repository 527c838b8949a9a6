"""The JSON schema of a request, bounded before an engine makes a grammar of it.

Engines write a repetition out, some call themselves once for each of them, and all of them follow
every way through what may be left out. A schema of a few bytes would end the server that way, or
keep it busy for hours, and no other request would be answered meanwhile.
"""

from __future__ import annotations

import re
from typing import Any

from .refused import Refused

# Any: the client's JSON.

MOST_BYTES = 1 << 16
"""Of a schema, as JSON."""
MOST_TIMES = 4096
"""What may repeat itself so often at most. llama.cpp 0.3.36 takes about a thousand, refuses more,
and dies of twenty thousand (its parser calls itself for each)."""
MOST_TIMES_IN_ALL = 1 << 15
MOST_OPTIONAL = 16
"""Parts of a pattern that may be left out: with 50 of them llama.cpp took 4 s for each token of a
vocabulary of 2,048, with 100 more than a minute."""
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_KIND = re.compile(r"\(\?(?:<[=!]|P?<[^>]*>|[=!]|[a-z-]*:?)")
"""The begin of a group of another kind than the usual."""
_TIMES = re.compile(r"\{ *(\d*) *(?:(,) *(\d*) *)?\}")


def check(schema: dict[str, Any], text: str) -> None:
    """Raise Refused for a schema, which is `text` as JSON, that takes too much to follow."""
    if len(text) > MOST_BYTES:
        raise Refused(f"the schema of `response_format` is longer than {MOST_BYTES} characters")
    in_all = 0
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            counts = [value[name] for name in _COUNTS if isinstance(value.get(name), int | float)]
            pattern = value.get("pattern")
            if isinstance(pattern, str):
                counts += _pattern(pattern)
            in_all += _added(counts)
    if in_all > MOST_TIMES_IN_ALL:
        raise Refused(
            f"the schema of `response_format` repeats {in_all} parts: {MOST_TIMES_IN_ALL} is the "
            "most here"
        )


def _added(counts: list[float]) -> int:
    for count in counts:
        if not count <= MOST_TIMES:
            raise Refused(
                f"the schema of `response_format` repeats something {count} times: {MOST_TIMES} is "
                "the most here"
            )
    return sum(max(0, int(count)) for count in counts)


def _pattern(pattern: str) -> list[float]:
    """How often a pattern repeats its parts. Raises Refused for one in which what may be empty is
    repeated, or too much is optional."""
    found = _Ways(pattern)
    if found.empty_repeated:
        raise Refused(
            "a `pattern` of the schema repeats what may be empty, like (a?)*: write it without"
        )
    if found.optional > MOST_OPTIONAL:
        raise Refused(
            f"a `pattern` of the schema has {found.optional} parts that may be left out: "
            f"{MOST_OPTIONAL} is the most here"
        )
    return found.times


class _Ways:
    """What of a regular expression may be left out, and how often parts are repeated; read as far
    as that needs, so that what no engine takes is left to the engine."""

    def __init__(self, pattern: str) -> None:
        self.optional, self.empty_repeated = 0, False
        self.times: list[float] = []
        # Of each open group: whether one of its alternatives may be empty, and whether all before
        # the last part of this one may.
        self._open: list[tuple[bool, bool]] = []
        self._any, self._all, self._last = False, True, True
        self._repeats = False
        at = 0
        while at < len(pattern):
            at = self._read(pattern, at)

    def _read(self, pattern: str, at: int) -> int:
        """Take what stands there; where the next begins."""
        sign = pattern[at]
        times = _TIMES.match(pattern, at) if sign == "{" else None
        repeats, self._repeats = self._repeats, sign in "*+?" or times is not None
        if sign == "?" and repeats:
            return at + 1  # as few as possible: the same words
        if sign in "*+?":
            self._repeat(0 if sign in "*?" else 1, sign != "?")
        elif times is not None:
            least, comma, most = int(times[1] or 0), times[2], times[3]
            self.times.append(float(most or least) if most or not comma else float(least))
            self._repeat(least, bool(comma and not most) or int(most or least) > 1)
            return times.end()
        elif sign == "(":
            self._part(True)
            self._open.append((self._any, self._all))
            self._any, self._all, self._last = False, True, True
            kind = _KIND.match(pattern, at)
            return kind.end() if kind else at + 1
        elif sign == ")" and self._open:
            empty = self._any or (self._all and self._last)
            self._any, self._all = self._open.pop()
            self._last = empty
        elif sign == "|":
            self._any = self._any or (self._all and self._last)
            self._all, self._last = True, True
        elif sign == "[":
            self._part(False)
            return _after_class(pattern, at)
        else:
            self._part(sign in "^$" or pattern[at : at + 2] in (r"\b", r"\B"))
            return at + 1 + (sign == "\\")
        return at + 1

    def _part(self, empty: bool) -> None:
        """Another part begins, which may be empty or not."""
        self._all, self._last = self._all and self._last, empty

    def _repeat(self, least: int, several: bool) -> None:
        """What the last part was is repeated."""
        if several and self._last:
            self.empty_repeated = True
        if least == 0:
            self.optional += 1
            self._last = True


def _after_class(pattern: str, at: int) -> int:
    """Behind the bracket that closes the one at that place."""
    at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1
