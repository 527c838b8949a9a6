"""The order in which workers are given the files of the suite, the table it comes from, and its two
tiers."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import cpu_seconds, tiers


def items(*names: str, thorough: bool = False) -> list[Any]:
    mark = pytest.mark.thorough.mark if thorough else None
    return [
        SimpleNamespace(
            path=Path("tests", name.partition("::")[0]),
            nodeid=name,
            get_closest_marker=lambda _: mark,
            iter_markers=lambda _: [mark] if mark else [],
        )
        for name in names
    ]


def test_the_longest_file_comes_first_and_each_keeps_its_own_order(monkeypatch: Any) -> None:
    table = {"test_a.py": (1.0, 400.0), "test_b.py": (300.0, 0.0)}
    monkeypatch.setattr(cpu_seconds, "known", lambda: table)
    given = items("test_a.py::z", "test_a.py::a", "test_b.py::z", "test_b.py::a", "test_new.py::a")

    def ordered(tests: list[Any]) -> list[str]:
        return [item.nodeid for item in cpu_seconds.longest_first(tests)]

    assert ordered(given) == [
        "test_b.py::z",
        "test_b.py::a",
        "test_new.py::a",
        "test_a.py::z",
        "test_a.py::a",
    ], "what nobody has measured is not left to the end"
    both = [*given, *items("test_a.py::t", thorough=True)]
    assert ordered(both)[:3] == ["test_a.py::z", "test_a.py::a", "test_a.py::t"]


def test_the_table_is_the_sum_of_what_was_recorded() -> None:
    keys = ("test", "thorough", "own", "children", "wall")
    values = [
        ("tests/test_a.py::one", False, 0.5, 1.0, 2.0),
        ("tests/test_b.py::waits", False, 0.0, 0.0, 4.0),
        ("tests/test_a.py::two[x::y]", False, 1.0, 0.25, 2.0),
        ("tests/test_b.py::two", True, 1.0, 0.0, 1.0),
    ]
    rows = [dict(zip(keys, row, strict=True)) for row in values]
    made = cpu_seconds.table_of(json.dumps(row) for row in rows)
    assert list(made.items()) == [("test_b.py", (2.0, 1.0)), ("test_a.py", (2.8, 0.0))]


def test_a_test_of_the_thorough_tier_has_cases_in_the_fast_one_or_names_what_stands_for_it() -> (
    None
):
    some = [*items("a.py::t[1]"), *items("a.py::t[2]", "a.py::u[1]", "a.py::u[2]", thorough=True)]
    assert tiers.unrepresented(some) == ["a.py::u"]
    (named,) = items("a.py::u[3]")
    named.iter_markers = lambda _: [pytest.mark.thorough("test_v").mark]
    assert tiers.unrepresented([*some, named]) == []


def test_what_stands_for_a_test_of_the_thorough_tier_is_a_test_of_the_fast_one() -> None:
    fast: set[str] = set()
    named: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [
                    one
                    for one in node.decorator_list
                    if isinstance(one, ast.Call) and ast.unparse(one.func).endswith(".thorough")
                ]
                named |= {str(ast.literal_eval(value)) for one in marks for value in one.args}
                if not marks:
                    fast.add(node.name)
    assert named and named - fast == set()
