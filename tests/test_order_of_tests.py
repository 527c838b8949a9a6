"""The order in which workers are given the files of the suite, and the table it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.support import cpu_seconds


def items(*names: str) -> Any:
    return [
        SimpleNamespace(path=Path("tests", name.partition("::")[0]), nodeid=name) for name in names
    ]


def test_the_longest_file_comes_first_and_each_keeps_its_own_order(monkeypatch: Any) -> None:
    monkeypatch.setattr(cpu_seconds, "known", lambda: {"test_a.py": 1.0, "test_b.py": 300.0})
    given = items("test_a.py::z", "test_a.py::a", "test_b.py::z", "test_b.py::a", "test_new.py::a")
    ordered = [cast(Any, item).nodeid for item in cpu_seconds.longest_first(given)]
    assert ordered == [
        "test_b.py::z",
        "test_b.py::a",
        "test_new.py::a",
        "test_a.py::z",
        "test_a.py::a",
    ], "what nobody has measured is not left to the end"


def test_the_table_is_the_sum_of_what_was_recorded() -> None:
    rows = [
        {"test": "tests/test_a.py::one", "own": 0.5, "children": 1.0},
        {"test": "tests/test_b.py::one", "own": 2.0, "children": 0.0},
        {"test": "tests/test_a.py::two[x::y]", "own": 1.0, "children": 0.25},
    ]
    made = cpu_seconds.table_of(json.dumps(row) for row in rows)
    assert list(made.items()) == [("test_a.py", 2.8), ("test_b.py", 2.0)]
