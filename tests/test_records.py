"""Records: read from JSON with every field checked, written back, and described where readers look."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.records import Contents, Measurement, Misfit, Quality, Sustained, Verdict
from packager.records.figures import BY_NAME, DERIVED, MEASURED
from tests.conftest import REPOSITORY
from tests.support.contents import LEAST, contents_of

FLOATS = st.one_of(st.none(), st.floats(-1e15, 1e15, allow_nan=False))


@given(st.fixed_dictionaries(dict.fromkeys(("decode_tps", "ttft_ms", "load_s"), FLOATS)))
def test_a_measurement_survives_json_and_null_counts_as_absent(figures: dict[str, Any]) -> None:
    measured = Measurement.from_json(figures)
    assert Measurement.from_json(json.loads(json.dumps(measured.to_json()))) == measured
    assert Measurement.from_json({k: v for k, v in figures.items() if v is not None}) == measured


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (
            {"measured": {"energy": {"joules_per_token": "much"}}},
            "measured.energy.joules_per_token",
        ),
        ({"measured": {"sustained": {"seconds": 1.0}}}, "measured.sustained.first_tps"),
        ({"measurements": [{}, {"threads": 1.5}]}, "measurements[1].threads"),
        ({"measured": {"left_out": ["a\x1b[2J"]}}, "measured.left_out"),
        ({"workload": {"context": 0}}, "workload.context"),
        ({"verdicts": [{"rule": "decode"}]}, "verdicts[0].limit"),
        ({"runtime": {}}, "runtime.name"),
        ({"target": "a\nb"}, "target"),
    ],
)
def test_the_field_that_does_not_fit_is_named_with_its_path(data: Any, field: str) -> None:
    with pytest.raises(Misfit) as caught:
        Contents.from_json({**LEAST, **data})
    assert caught.value.field == field


def test_what_a_newer_version_adds_is_passed_over() -> None:
    assert contents_of(
        measured={"decode_tps": 3.0, "new_figure": {"a": 1}}
    ).measured == Measurement(decode_tps=3.0)


def test_deep_json_is_refused_and_not_followed() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Misfit):
        Contents.from_json({**LEAST, "tools": {"x": deep}})


def test_every_figure_of_the_table_is_a_field_and_has_a_name_of_its_own() -> None:
    energy = {"joules_per_token", "joules_per_prompt"}
    measured = set(Measurement.__struct_fields__) | energy | {"artifact_bytes"}
    assert {figure.name for figure in MEASURED} <= measured
    assert len(BY_NAME) == len(MEASURED) + len(DERIVED)
    assert len({figure.label for figure in BY_NAME.values()}) == len(BY_NAME)


def test_every_field_is_described_where_readers_look() -> None:
    described = (REPOSITORY / "docs" / "manifest.md").read_text()
    for record in (Contents, Measurement, Quality, Sustained, Verdict):
        names = [field.encode_name for field in msgspec.structs.fields(record)]
        missing = [name for name in names if name not in described]
        assert missing == [], record.__name__
