"""Which of a manifest's measurements tells of the device, and what the budgets make of it."""

from __future__ import annotations

from typing import Any

import pytest

from packager.records import Measurement, Verdict
from packager.report.budgets import sentence, verdicts
from tests.support.contents import contents_of

HERE = {"decode_tps": 9.0, "peak_memory_bytes": 900, "place": {"on_device": True, "why": "it is"}}
LATER = {**HERE, "decode_tps": 8.0}
THERE = {
    "decode_tps": 90.0,
    "peak_memory_bytes": 100,
    "place": {"on_device": False, "why": "it is not"},
}
OLD = {"decode_tps": 5.0, "peak_memory_bytes": 500}
LIMITS = [
    Verdict(rule="artifact", limit=1000, unit="B", enforced=True),
    Verdict(rule="memory", limit=800, unit="B", enforced=True),
    Verdict(rule="decode", limit=6.0, unit="tok/s", enforced=False),
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
    contents = contents_of(data)
    wanted = None if expected is None else Measurement.from_json(expected)
    assert contents.telling == wanted
    assert contents.seen_on_device == (wanted is not None and wanted.on_device)


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
    figures = None if measured is None else Measurement.from_json(measured)
    rows = verdicts(LIMITS, 1000, figures)
    assert [row.passed for row in rows] == expected
    assert [row.measured is None for row in rows] == [passed is None for passed in expected]
    assert verdicts(rows, 1000, figures) == rows, "verdicts can be judged again"
    assert all(("not yet measured" in sentence(row)) == (row.passed is None) for row in rows)


def test_documents_of_the_workloads_length_are_judged_by_the_rate_of_that_length() -> None:
    limits = [
        Verdict(rule="documents", limit=2.0, unit="/s", enforced=True),
        Verdict(rule="query", limit=80.0, unit="ms", enforced=True),
    ]
    taken = {"task": "embed", "ttft_ms": 400.0, "documents_512_dps": 3.0, "query_ms": 90.0}
    for tokens, rate in ((512, 3.0), (300, 2.5), (128, 2.5)):
        figures = Measurement.from_json({**taken, "prompt_tokens": tokens})
        documents, query = verdicts(limits, 0, figures)
        assert (documents.measured, documents.passed, query.failed) == (rate, True, True)
        assert sentence(documents) == f"documents: {rate:.1f} /s of at least 2.0 /s"
    text = Measurement.from_json({"ttft_ms": 400.0, "decode_tps": 9.0})
    assert [row.passed for row in verdicts(limits, 0, text)] == [None, None]
