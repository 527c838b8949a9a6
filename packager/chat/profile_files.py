"""A profile from what a user writes: a word, two files, and sampling as KEY=VALUE."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from packager.chat.profile import Profile, Thinking
from packager.errors import bad_input, usage
from packager.foreign import parse_json
from packager.json_values import JsonObject
from packager.names import did_you_mean
from packager.package.sampling import KEYS

_MOST_BYTES = 1 << 20
_BUDGET = re.compile(r"budget:([0-9]{1,7})")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BOUNDS = {
    "temperature": (0.0, 10.0),
    "top_k": (0.0, 1e6),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
}
"""Least and largest value that the engines take."""


def parse(
    thinking: str | None, system_prompt: Path | None, tools: Path | None, sampling: str | None
) -> Profile:
    """The profile of these flags.

    Raises PackError: 2 for a word or number that is none, or a file that is not there; 6 naming the
    file for content that is not text, no JSON, or no tools.
    """
    switch, budget = _thinking(thinking)
    return Profile(
        switch,
        budget,
        None if system_prompt is None else _text(system_prompt),
        () if tools is None else read_tools(tools),
        {} if sampling is None else _sampling(sampling),
    )


def read_tools(path: Path) -> tuple[JsonObject, ...]:
    """Tools in OpenAI's form: a JSON list of {"type": "function", "function": {"name", ...}}."""
    tools = parse_json(
        _text(path).encode(), str(path), "Write a list of tools.", constant=_no_constant
    )
    if not isinstance(tools, list) or not tools:
        raise bad_input(f"{path} holds no list of tools.", "Write a list, also for one tool.")
    seen: set[str] = set()
    for place, tool in enumerate(tools):
        why_not = _misfit(tool, seen)
        if why_not:
            raise bad_input(
                f"{path}: tools[{place}] {why_not}.",
                'Write {"type": "function", "function": {"name": ..., "parameters": {...}}}.',
            )
        seen.add(tool["function"]["name"])
    return tuple(tools)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _misfit(tool: Any, seen: set[str]) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        return "is not a function"
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"has no usable name ({name!r})"
    if name in seen:
        return f"has the name {name!r} of another one"
    if not isinstance(function.get("parameters", {}), dict):
        return f"({name}) has parameters that are not a JSON schema"
    return None


def _thinking(value: str | None) -> tuple[Thinking | None, int | None]:
    if value is None or value in ("on", "off"):
        return value, None  # type: ignore[return-value]
    match = _BUDGET.fullmatch(value)
    if match is None or int(match[1]) < 1:
        raise usage(
            f"--thinking {value!r} is neither on, off nor budget:N.",
            "For example --thinking budget:512.",
        )
    return "on", int(match[1])


def _sampling(value: str) -> dict[str, float]:
    sampling: dict[str, float] = {}
    for part in value.split(","):
        key, equals, number = part.strip().partition("=")
        if key not in KEYS:
            raise usage(
                f"--sampling knows no {key!r}.{did_you_mean(key, KEYS)}",
                f"Known: {', '.join(KEYS)}.",
            )
        try:
            known = float(number)
        except ValueError:
            known = math.nan
        low, high = _BOUNDS[key]
        whole = key == "top_k"
        if not equals or not low <= known <= high or (whole and known != int(known)):
            kind = "a whole number" if whole else "a number"
            raise usage(
                f"--sampling {part.strip()!r}: {key} takes {kind} from {low:g} to {high:g}.",
                "For example --sampling temperature=0.7,top_p=0.8.",
            )
        sampling[key] = int(known) if whole else known
    return sampling


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise usage(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    if len(data) > _MOST_BYTES:
        raise bad_input(f"{path} has more than {_MOST_BYTES} bytes.", "Shorten it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_input(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from None
