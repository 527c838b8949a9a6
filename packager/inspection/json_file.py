"""JSON files of a package against the keys that they may have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from packager.errors import PackError
from packager.foreign import parse_json
from packager.inspection.rules import Rules, rules
from packager.inspection.unsafe import Unsafe, shown
from packager.json_values import JsonObject, JsonValue, as_object

_LARGEST = 8 << 20
_LARGEST_TOKENIZER = 128 << 20
_LARGE = ("tokenizer", "vocab")
_TEXT = re.compile(r"[A-Za-z0-9_.%+ -]{0,200}")
_DIGITS = re.compile(r"[0-9]{1,20}")


def refuse(stem: str, data: bytes, beside: Collection[str]) -> None:
    """Raise Unsafe for a configuration that says more than it may. `beside` are the names of the
    files in its folder."""
    own = rules()
    keys = own.configurations.get(stem)
    if keys is None and stem not in own.along:
        raise Unsafe("is a configuration that no package of qwen-pack has")
    value = _parsed(data, _hook(stem, own))
    if keys is None:
        return
    if isinstance(value, Mapping):
        _table(value, as_object(keys, stem), "", beside)
    else:
        raise Unsafe("is not a JSON object")


def largest(stem: str) -> int:
    """Bytes that a JSON file of that name may have."""
    return _LARGEST_TOKENIZER if stem in _LARGE else _LARGEST


_Hook = Callable[[list[tuple[str, Any]]], JsonObject]


def _hook(stem: str, own: Rules) -> _Hook | None:
    """What looks at every object of the document, also at one that an equal key replaces later:
    engines disagree about which of two counts."""
    if stem in own.along and stem not in own.configurations:
        return partial(_without_code, own.naming_code)
    return None if stem == "tokenizer" else _without_duplicates


def _parsed(data: bytes, hook: _Hook | None) -> JsonValue:
    try:
        value: JsonValue = parse_json(data, "the file", hook=hook)
    except PackError as error:
        raise Unsafe(f"is not valid JSON ({shown(error)})") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    table = dict(pairs)
    if len(table) != len(pairs):
        numbers = Counter(name for name, _ in pairs)
        twice = next(name for name, number in numbers.items() if number > 1)
        raise Unsafe(f"has {shown(twice)} twice in one object")
    return table


def _without_code(names: frozenset[str], pairs: list[tuple[str, Any]]) -> JsonObject:
    for name, _ in pairs:
        if name in names:
            raise Unsafe(f"names code ({shown(name)})")
    return dict(pairs)


def _table(value: JsonObject, keys: JsonObject, where: str, beside: Collection[str]) -> None:
    for name, inner in value.items():
        path = f"{where}.{name}" if where else name
        if name not in keys:
            raise Unsafe(f"has the key {shown(path)}, which is not allowed")
        _value(inner, keys[name], path, beside)


def _value(value: JsonValue, kind: JsonValue, where: str, beside: Collection[str]) -> None:
    if isinstance(kind, dict):
        if not isinstance(value, Mapping):
            raise Unsafe(f"has something other than an object as {shown(where)}")
        _table(value, kind, where, beside)
    elif isinstance(kind, list):
        if not isinstance(value, list):
            raise Unsafe(f"has something other than a list as {shown(where)}")
        for number, inner in enumerate(value):
            _value(inner, kind[0], f"{where}[{number}]", beside)
    elif not isinstance(kind, str) or not _fits(value, kind, beside):
        raise Unsafe(
            f"has the value {shown(value)} as {shown(where)}, where {_wanted(str(kind))} belongs"
        )


def _fits(value: Any, kind: str, beside: Collection[str]) -> bool:
    if kind == "data" or (value is None and kind in ("number", "numbers", "flag", "text")):
        return True
    if kind == "number":
        return _is_number(value)
    if kind == "numbers":
        return _is_number(value) or (isinstance(value, list) and all(map(_is_number, value)))
    if kind == "flag":
        return isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if kind == "text":
        return bool(_TEXT.fullmatch(value)) and ".." not in value
    if kind == "digits":
        return bool(_DIGITS.fullmatch(value))
    if kind.startswith("*."):
        return value.endswith(kind[1:]) and value in beside
    return value in kind.split("|")


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wanted(kind: str) -> str:
    words = {
        "number": "a number",
        "numbers": "a number or a list of numbers",
        "flag": "true or false",
        "digits": "a text of digits",
    }
    words["text"] = "a plain name"
    if kind.startswith("*."):
        return f"a file of the package that ends in {kind[1:]}"
    return words.get(kind) or "one of " + ", ".join(kind.split("|"))
