"""Predicted stands beside measured with the error, and nothing is shown that nobody knows."""

from __future__ import annotations

from typing import Any

from packager.records import Measurement
from packager.records.contents import Predicted
from packager.report import figures

DATA: dict[str, Any] = {
    "artifact_bytes": 200,
    "predicted": {
        "artifact_bytes": 210,
        "footprint": {"peak": 900},
        "forecast": {"decode_tps": 30.0, "prefill_tps": 90.0, "ttft_ms": 500.0},
    },
    "measured": {
        "prompt_tokens": 512,
        "peak_memory_bytes": 1000,
        "ttft_ms": 400.0,
        "ttft_ms_p99": 450.0,
        "prefill_tps": 100.0,
        "prefill_512_tps": None,
        "decode_tps": 20.0,
        "decode_full_tps": 15.0,
        "full_context_tokens": 4072,
        "energy": {"source": "RAPL", "joules_per_token": 0.25, "joules_per_prompt": None},
    },
}


def parts(data: dict[str, Any]) -> tuple[Measurement | None, int | None, Predicted | None]:
    measured, predicted = data.get("measured"), data.get("predicted")
    return (
        None if measured is None else Measurement.from_json(measured),
        data.get("artifact_bytes"),
        None if predicted is None else Predicted.from_json(predicted),
    )


def errors_percent(data: dict[str, Any]) -> dict[str, float | None]:
    return figures.errors_percent(*parts(data))


def rows(data: dict[str, Any]) -> list[figures.Row]:
    return figures.rows(*parts(data))


def test_the_error_is_how_far_the_prediction_lies_above_what_was_measured() -> None:
    assert errors_percent(DATA) == {
        "artifact_bytes": 5.0,
        "peak_memory_bytes": -10.0,
        "ttft_ms": 25.0,
        "prefill_tps": -10.0,
        "decode_tps": 50.0,
    }
    assert set(errors_percent({**DATA, "measured": None}).values()) == {5.0, None}
    assert set(errors_percent({}).values()) == {None}


def test_a_row_tells_predicted_measured_and_error_and_leaves_empty_what_is_unknown() -> None:
    texts = {row.label: row.texts() for row in rows(DATA)}
    assert texts["decode"] == ("30.0 tok/s", "20.0 tok/s", "+50 %")
    assert texts["first token, 512 tokens"] == ("500 ms", "400 ms", "+25 %")
    assert texts["first token, P99"] == ("", "450 ms", "")
    assert texts["decode at 4072 tokens of context"] == ("", "15.0 tok/s", "")
    assert texts["energy per token"] == ("", "0.25 J", "")
    assert "prefill, prompt of 512" not in texts
    assert "energy per prompt" not in texts


def test_figures_of_another_machine_are_no_check_of_the_prediction_and_the_files_are_the_same_everywhere() -> (
    None
):
    measured = {
        **DATA["measured"],
        "place": {"on_device": False, "why": "the device is aarch64, this machine x86_64"},
    }
    texts = {row.label: row.texts() for row in rows({**DATA, "measured": measured})}
    assert texts["decode"] == ("30.0 tok/s", "20.0 tok/s", "")
    assert texts["model files"] == ("210 B", "200 B", "+5 %")


def test_what_was_not_measured_still_shows_its_prediction() -> None:
    texts = {row.label: row.texts() for row in rows({**DATA, "measured": None})}
    assert texts["decode"] == ("30.0 tok/s", "", "")
    assert rows({}) == []


def test_noise_is_said_with_its_reasons_and_attempts_and_a_clean_measurement_says_nothing() -> None:
    assert Measurement(noisy=False).noise == ""
    seen = Measurement(
        noisy=True,
        noisy_because=("answers: other processes used 1.5 cores",),
        attempts={"answers": 3, "rates": 1},
    )
    assert seen.noise == ("noisy (answers: other processes used 1.5 cores; the best of 3 attempts)")
    assert Measurement(noisy=True).noise.startswith("noisy (other programs")
