"""Whether the data of a plan file has the keys, types and ranges of one; what its names mean comes
later."""

from __future__ import annotations

from collections.abc import Mapping

from packager.errors import usage
from packager.names import did_you_mean
from packager.sweep.plan_schema import EXCLUDE, SECTIONS, TOP, Rule, Word, complaint

HINT = "docs/sweep.md describes every key."
LISTS = ("exclude", "compare", "on")
"""Keys that hold tables of their own kind."""


class Problems:
    """What is wrong with one file, in the order in which it was found."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[str] = []

    def add(self, key: str, text: str) -> None:
        """One problem with a dotted key."""
        self._found.append(f"{self._file}: {key} {text}")

    def raise_any(self) -> None:
        """Raise all of them in one PackError (usage), if there are any."""
        if self._found:
            raise usage("\n".join(dict.fromkeys(self._found)), HINT)


def check(data: Mapping[str, object], problems: Problems) -> None:
    """Types, ranges and unknown keys; what the names mean comes later."""
    for key in data:
        if key not in TOP and key not in SECTIONS and key not in LISTS:
            home = next((name for name, rules in SECTIONS.items() if key in rules), None)
            where = f" It belongs below [{home}]." if home else ""
            near = where or did_you_mean(key, [*TOP, *SECTIONS, *LISTS])
            problems.add(key, f"is not a key of a plan file.{near}")
    _check_table("", {key: data[key] for key in TOP if key in data}, TOP, problems)
    if not isinstance(data.get("on", {}), dict):
        problems.add("on", "must be a table of target and machine, written [on].")
    for section, rules in SECTIONS.items():
        part = data.get(section, {})
        if isinstance(part, dict):
            _check_table(f"{section}.", part, rules, problems)
        else:
            problems.add(section, f"must be a table, written [{section}].")
    for place, table in _tables(data, "exclude", problems):
        _check_table(f"exclude[{place}].", table, EXCLUDE, problems)
        if not set(table) - {"why"}:
            problems.add(f"exclude[{place}]", "names nothing, so it would exclude everything.")
    for place, table in _tables(data, "compare", problems):
        _check_compare(f"compare[{place}]", table, problems)


def _tables(
    data: Mapping[str, object], key: str, problems: Problems
) -> list[tuple[int, Mapping[str, object]]]:
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.add(key, f"must be a list of tables, each written [[{key}]].")
        return []
    return list(enumerate(tables, 1))


def _check_compare(key: str, table: Mapping[str, object], problems: Problems) -> None:
    rules = {name: rule for name, rule in EXCLUDE.items() if name != "why"}
    for side in ("one", "other"):
        patterns = table.get(side)
        if not isinstance(patterns, dict) or not patterns:
            problems.add(f"{key}.{side}", "must be a table of patterns, such as {variant = 'x'}.")
        else:
            _check_table(f"{key}.{side}.", patterns, rules, problems)
    if wrong := complaint(Word(), table.get("name")):
        problems.add(f"{key}.name", wrong)
    for unknown in sorted(set(table) - {"name", "one", "other"}):
        problems.add(f"{key}.{unknown}", "is not a key of a comparison. Known: name, one, other.")


def _check_table(
    prefix: str, table: Mapping[str, object], rules: Mapping[str, Rule], problems: Problems
) -> None:
    for key, value in table.items():
        if key not in rules:
            near = did_you_mean(key, rules) or f" Known: {', '.join(rules)}."
            problems.add(prefix + key, f"is not a key of a plan file.{near}")
        elif wrong := complaint(rules[key], value):
            problems.add(prefix + key, wrong)
