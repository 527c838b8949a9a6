"""An engine's ladder, read from TOML and checked; errors name the file and the key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from packager.errors import PackError, bad_input
from packager.json_values import JsonObject
from packager.names import did_you_mean
from packager.runtime import Ladder, Rung, Runtime, Trial

DEFAULT = "default"
"""The name of the first rung: the engine as it comes."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_TOP = ("distributions", "on_another_processor", "reinstall", "check", "rung")
_TRIAL = ("recipe", "least", "narrow")
_RUNG = ("name", "reason", "source", "environment", "avoids", "flags", "variables", "options")


def read(path: Path) -> Ladder:
    """The ladder in a TOML file, the engine's own way put in front. Raises PackError (bad
    input)."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise bad_input(f"{path} cannot be read: {error}.") from None
    _known(path, "", table, _TOP)
    trials = tuple(
        _trial(path, number, row) for number, row in enumerate(_rows(path, table, "check"))
    )
    rungs = tuple(_rung(path, number, row) for number, row in enumerate(_rows(path, table, "rung")))
    names = [DEFAULT, *(rung.name for rung in rungs)]
    if len(set(names)) < len(names):
        raise _wrong(path, "rung", "has two rungs of one name")
    if not trials:
        raise _wrong(path, "check", "names no recipe")
    return Ladder(
        distributions=_texts(path, "distributions", table.get("distributions")),
        trials=trials,
        rungs=(Rung(DEFAULT), *rungs),
        on_another_processor=_text(
            path, "on_another_processor", table.get("on_another_processor", "")
        ),
        reinstall=_text(path, "reinstall", table.get("reinstall", "")),
    )


def _trial(path: Path, number: int, row: JsonObject) -> Trial:
    where = f"check[{number}]"
    _known(path, where, row, _TRIAL)
    least = row.get("least")
    if not isinstance(least, int | float) or isinstance(least, bool) or not 0 < least < 1:
        raise _wrong(path, f"{where}.least", "is not a number between 0 and 1")
    narrow = row.get("narrow", False)
    if not isinstance(narrow, bool):
        raise _wrong(path, f"{where}.narrow", "is neither true nor false")
    return Trial(_word(path, f"{where}.recipe", row.get("recipe")), float(least), narrow)


def _rung(path: Path, number: int, row: JsonObject) -> Rung:
    where = f"rung[{number}]"
    _known(path, where, row, _RUNG)
    name = _word(path, f"{where}.name", row.get("name"))
    if not _NAME.fullmatch(name):
        raise _wrong(path, f"{where}.name", "is not a word of small letters, digits and hyphens")
    _word(path, f"{where}.source", row.get("source"))
    rung = Rung(
        name=name,
        reason=_word(path, f"{where}.reason", row.get("reason")),
        environment=_variables(path, f"{where}.environment", row.get("environment", {})),
        avoids=_texts(path, f"{where}.avoids", row.get("avoids", [])),
        flags=_texts(path, f"{where}.flags", row.get("flags", [])),
        variables=_variables(path, f"{where}.variables", row.get("variables", {})),
        options=_pairs(path, f"{where}.options", row.get("options", {})),
    )
    if not rung.environment:
        raise _wrong(path, f"{where}.environment", "sets nothing")
    return rung


def _rows(path: Path, table: JsonObject, key: str) -> list[JsonObject]:
    rows = table.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _wrong(path, key, "is not a list of tables")
    return rows


def _known(path: Path, where: str, table: JsonObject, keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise _wrong(
                path,
                f"{where}.{key}".lstrip("."),
                f"is not known.{did_you_mean(key, keys)}".rstrip("."),
            )


def _word(path: Path, key: str, value: Any) -> str:
    text = _text(path, key, value)
    if not text:
        raise _wrong(path, key, "is missing")
    return text


def _text(path: Path, key: str, value: Any) -> str:
    if value is None:
        raise _wrong(path, key, "is missing")
    if not isinstance(value, str) or not value.replace("\n", "").isprintable():
        raise _wrong(path, key, "is not a text")
    return value


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(path, key, "is not a list of texts")
    return tuple(_word(path, key, item) for item in value)


def _pairs(path: Path, key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(path, key, "is not a table")
    return {name: _word(path, f"{key}.{name}", item) for name, item in value.items()}


def _variables(path: Path, key: str, value: Any) -> dict[str, str]:
    pairs = _pairs(path, key, value)
    wrong = next((name for name in pairs if not _VARIABLE.fullmatch(name)), None)
    if wrong is not None:
        raise _wrong(path, f"{key}.{wrong}", "is not the name of a variable")
    return pairs


def _wrong(path: Path, key: str, what: str) -> PackError:
    return bad_input(f"{path}: {key} {what}.")


@runtime_checkable
class OnAnEngine(Protocol):
    """What a Runtime has besides that is not its engine's adapter as it is: it offers one model
    alone, or recipes with something of the user's in them."""

    engine: Runtime
    """The plain adapter, with which the engine is tried."""
