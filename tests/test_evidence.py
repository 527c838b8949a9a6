"""Which of a manifest's measurements tells of the device, and what the budgets make of it."""

from __future__ import annotations

from typing import Any

import pytest

from packager.report.budgets import sentence, verdicts
from packager.report.evidence import on_device, seen_on_device, telling

HERE = {"decode_tps": 9.0, "peak_memory_bytes": 900, "place": {"on_device": True, "why": "it is"}}
LATER = {**HERE, "decode_tps": 8.0}
THERE = {
    "decode_tps": 90.0,
    "peak_memory_bytes": 100,
    "place": {"on_device": False, "why": "it is not"},
}
OLD = {"decode_tps": 5.0, "peak_memory_bytes": 500}
LIMITS = [
    {"rule": "artifact", "limit": 1000, "unit": "B", "enforced": True},
    {"rule": "memory", "limit": 800, "unit": "B", "enforced": True},
    {"rule": "decode", "limit": 6.0, "unit": "tok/s", "enforced": False},
]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, None),
        ({"measured": None, "measurements": None}, None),
        ({"measured": THERE, "measurements": []}, THERE),
        ({"measured": THERE, "measurements": [HERE, LATER, THERE]}, LATER),
        ({"measured": HERE, "measurements": [LATER]}, HERE),
        ({"measured": None, "measurements": [THERE]}, THERE),
        ({"measured": OLD, "measurements": [HERE]}, OLD),
    ],
)
def test_a_measurement_of_the_device_tells_more_than_one_of_the_machine_that_built(
    data: dict[str, Any], expected: Any
) -> None:
    assert telling(data) == expected
    assert seen_on_device(data) == (expected is not None and on_device(expected))


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (None, [True, None, None]),
        (THERE, [True, None, None]),
        (HERE, [True, False, True]),
        (OLD, [True, True, False]),
        ({**HERE, "gpu_memory_bytes": 700}, [True, True, True]),
    ],
)
def test_only_figures_of_the_device_judge_it_and_the_size_of_the_files_needs_none(
    measured: Any, expected: list[bool | None]
) -> None:
    rows = verdicts(LIMITS, 1000, measured)
    assert [row["passed"] for row in rows] == expected
    assert [row["measured"] is None for row in rows] == [passed is None for passed in expected]
    assert verdicts(rows, 1000, measured) == rows, "verdicts can be judged again"
    assert all(("not yet measured" in sentence(row)) == (row["passed"] is None) for row in rows)
