"""Patterns by which an adapter names modules: regular expressions of somebody else, of which those
that could run for ever are refused before they are matched.

Python's `re` goes back to every choice that it made, and has no limit of time. So the choices are
counted: alternatives and what may be left out multiply, and each repetition takes as long as the
text.
"""

from __future__ import annotations

import re
from functools import lru_cache

from packager.errors import bad_input
from packager.limits import PATTERN_CHARACTERS

_SHOWN = 60
_MANY = 1 << 13
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
# `(?x:(a+) +)` repeats a group as well: there blanks and comments mean nothing.
_FLAGS = re.compile(r"\(\?[a-zA-Z-]*[xX]")
_LOOPS = "*+{"


@lru_cache(_MANY)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern at the end of a module's name, as PEFT matches it (get_pattern_key)."""
    return re.compile(rf"(.*\.)?({pattern})$")


def refuse_pattern(where: str, pattern: str) -> None:
    """Raise PackError (exit code 6) for what is not a valid regular expression, or repeats a
    group."""
    repeats = _REPEATED_GROUP.search(pattern) or _FLAGS.search(pattern)
    if len(pattern) > PATTERN_CHARACTERS or repeats:
        raise bad_input(
            f"{where} has the pattern {pattern[:_SHOWN]!r}, which is too complex.",
            "Write the modules' names out.",
        )
    try:
        compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise bad_input(
            f"{where} has {pattern[:_SHOWN]!r}, which is not a regular expression: {error}.",
            "Get the file again from where the adapter came from.",
        ) from None


def most_steps(pattern: str, length: int) -> int:
    """How many steps a match of the pattern over so many characters can take, at most."""
    ways, loops = _choices(pattern)
    each: int = max(1, length) ** (loops + 1)
    return ways * each


def _choices(pattern: str) -> tuple[int, int]:
    """In how many ways alternatives can be chosen, and how many repetitions there are."""
    # For each open group: the ways of its finished alternatives, and those of the present one.
    open_groups: list[list[int]] = [[0, 1]]
    loops = 0
    for sign in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?|.", pattern, re.DOTALL):
        match sign:
            case "(" | "(?":
                open_groups.append([0, 1])
            case "|":
                open_groups[-1][0] += open_groups[-1][1]
                open_groups[-1][1] = 1
            case ")" if len(open_groups) > 1:
                inner = sum(open_groups.pop())
                open_groups[-1][1] *= inner
            case "?":
                open_groups[-1][1] *= 2
            case _ if sign in _LOOPS:
                loops += 1
    return sum(map(sum, open_groups)), loops
