"""Fields of an agent's answers, of the kind that they must be: what runs on a device may be
anything, and says anything."""

from __future__ import annotations

from packager.errors import PackError, bad_input
from packager.json_values import JsonObject, JsonValue

_LARGEST = 1 << 62
_SHOWN = 40

Answer = JsonObject


def not_ours(why: str = "") -> PackError:
    """The sentence for a program that does not speak as an agent does."""
    return bad_input(
        f"What runs on the device does not answer as an agent does{why and ': ' + why}.",
        "Build it again: qwen-pack agent build.",
    )


def whole(answer: Answer, key: str, most: int = _LARGEST) -> int:
    """A whole number from 0 to `most`. Raises PackError (exit code 6) for anything else."""
    value = answer.get(key)
    if not _is_whole(value, most):
        raise _wrong(key, value)
    return int(value)  # type: ignore[arg-type]


def wholes(answer: Answer, key: str, most: int = _LARGEST) -> list[int]:
    """A list of whole numbers from 0 on, `most` of them at most."""
    value = answer.get(key)
    if not isinstance(value, list) or len(value) > most or not all(map(_is_whole, value)):
        raise _wrong(key, value)
    return value


def number(answer: Answer, key: str) -> float:
    """A number that a float can hold."""
    value = answer.get(key)
    if not is_number(value):
        raise _wrong(key, value)
    return float(value)  # type: ignore[arg-type]


def optional_number(answer: Answer, key: str) -> float | None:
    """The same; None where it is absent or null."""
    return None if answer.get(key) is None else number(answer, key)


def optional_text(answer: Answer, key: str, most: int) -> str | None:
    """A text of at most so many characters; None where it is absent or null."""
    value = answer.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise _wrong(key, value)
    return value


def table(answer: Answer, key: str) -> JsonObject:
    """An object; an empty one where it is absent or null."""
    value = answer.get(key)
    if value is not None and not isinstance(value, dict):
        raise _wrong(key, value)
    return value or {}


def is_number(value: JsonValue) -> bool:
    """Whether a float can hold it; truth values are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_whole(value: JsonValue, most: int = _LARGEST) -> bool:
    return type(value) is int and 0 <= value <= most


def _wrong(key: str, value: JsonValue) -> PackError:
    return not_ours(f"its {key} is {repr(value)[:_SHOWN]}")
