"""Typed reading of a JSON table; every complaint names the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packager.errors import PackError, bad_input

_LARGEST = 1 << 31
_HINT = "Take the config.json of the checkpoint as it was published."


class Fields:
    """A table of config.json. A key with null counts as missing, as in transformers."""

    def __init__(self, table: Mapping[str, Any], where: str, path: str = "") -> None:
        self._table = table
        self._where = where
        self._path = path

    def __contains__(self, key: str) -> bool:
        return self._table.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the key is there, with null."""
        return key in self._table and self._table[key] is None

    def wrong(self, key: str, problem: str) -> PackError:
        """The complaint about one key (exit code 6)."""
        return bad_input(f"{self._where}: {self._path}{key} {problem}.", _HINT)

    def is_empty(self, key: str) -> bool:
        """Whether the key holds a table or list without entries, which transformers takes for
        missing."""
        return self._table.get(key) in ({}, [])

    def nested(self) -> bool:
        """Whether a value is a table itself."""
        return any(isinstance(value, Mapping) for value in self._table.values())

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, f"is {value!r}, not a text")
        return value

    def table(self, key: str) -> Fields:
        """A table within this one."""
        value = self._table.get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, "is missing" if value is None else f"is {value!r}, not a table")
        return Fields(value, self._where, f"{self._path}{key}.")

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number below 2**31."""
        value = self._value(key, default)
        if type(value) is not int or not 0 < value < _LARGEST:
            raise self.wrong(key, f"is {value!r}, not a positive whole number")
        return value

    def whole(self, key: str, default: int) -> int:
        """A whole number from 0 to 2**31."""
        value = self._value(key, default)
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise self.wrong(key, f"is {value!r}, not a whole number")
        return value

    def number(self, key: str, default: float, *, zero: bool = False) -> float:
        """A positive, finite number; with `zero` also 0."""
        value = self._value(key, default)
        if zero and type(value) in (int, float) and value == 0:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.wrong(key, f"is {value!r}, not a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {value!r}, neither true nor false")
        return value

    def listing(self, key: str) -> list[Any]:
        """A list; empty where the key is missing."""
        value = self._value(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, f"is {value!r}, not a list")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self._table.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.wrong(key, "is missing")
        return value
