"""A measurement says by itself whether it can be believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cores import cores
from packager.errors import ExitCode, PackError
from packager.measure import noise
from packager.measure import thread_search as threads
from packager.measure import throttling as sustained
from packager.measure.benchmark import measure
from packager.measure.measurement import run
from packager.measure.noise import BUSY_CORES, WIDE_SPREAD, Attempt, allowed_attempts, calm, verdict
from packager.process import Note
from packager.records.measurement import Window
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent

SHARES = st.floats(0, 3)


def attempt(others: float | None = 0.0, spread: float = 0.0) -> Attempt[str]:
    return Attempt("figures", others, spread)


def test_noisy_is_a_busy_machine_or_trials_that_lie_apart_and_the_reason_is_said() -> None:
    assert not attempt(BUSY_CORES * 0.9, WIDE_SPREAD * 0.9).noisy
    assert attempt(BUSY_CORES * 1.1).why("answers") == [
        f"answers: other processes used {BUSY_CORES * 1.1:.1f} cores"
    ]
    assert attempt(None, 0.5).why("rates") == ["rates: the results varied by 50%"]
    assert not attempt(None).noisy


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_best_behaved_attempt_is_kept_and_a_clean_one_ends_it(
    seen: list[tuple[float, float]],
) -> None:
    taken: list[int] = []

    class Told:
        at = 0.0

        def cores_since(self) -> float:
            return seen[len(taken) - 1][0]

    def once() -> tuple[int, float]:
        taken.append(len(taken))
        return taken[-1], seen[taken[-1]][1]

    with patch.object(noise.Mark, "now", Told), patch.object(noise, "_WAIT_S", 0.0):
        attempts = calm(once, len(seen))
    disorder = [Attempt(None, others, spread).disorder for others, spread in seen[: len(taken)]]
    assert attempts[0].figures == disorder.index(min(disorder))
    assert sorted(one.figures for one in attempts) == taken
    assert all(share > 1 for share in disorder[:-1])
    assert len(taken) == len(seen) or disorder[-1] <= 1


def test_one_noisy_part_makes_the_whole_measurement_noisy() -> None:
    parts: dict[str, list[Attempt[Any]]] = {
        "answers": [attempt(0.01)],
        "rates": [attempt(1.5), attempt(1.9)],
        "full context": [],
    }
    found = verdict(parts)
    assert found.noisy is True
    assert found.because == ("rates: other processes used 1.5 cores",)
    assert found.others == 1.5
    assert found.attempts == {"answers": 1, "rates": 2}
    assert verdict({"answers": [attempt(0.01, 0.01)]}).noisy is False


def test_what_is_noisy_is_measured_a_second_time_and_no_third_one_when_patience_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise, "_PATIENCE_S", -1.0)
    monkeypatch.setattr(noise, "_WAIT_S", 0.0)
    said: list[str] = []
    assert len(calm(lambda: ("", 1.0), 5, said.append)) == 2
    assert said == ["noisy: the results varied by 100%: measuring again"]
    assert len(calm(lambda: ("", 1.0), 1)) == 1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells the load")
@pytest.mark.slow
def test_with_a_busy_program_on_every_core_beside_it_a_measurement_is_noisy() -> None:
    busy = [
        subprocess.Popen([sys.executable, str(REPOSITORY / "tests" / "support" / "busy.py"), "60"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        how = {"context": 64, "kv": "f16", "threads": 1}
        order: dict[str, Any] = {
            "artifact": "abc",
            "settings": how,
            "prompt_tokens": 40,
            "new_tokens": 24,
            "repeats": 5,
        }
        figures = measure(
            Silent(), session="tests.support.byte_session:Steady", attempts=2, **order
        )
    finally:
        for program in busy:
            program.kill()
            program.wait()
    assert figures["noisy"] is True
    assert figures["attempts"] == {"answers": 2}
    assert figures["other_cpu_cores"] > BUSY_CORES
    assert "other processes used" in " ".join(figures["noisy_because"])


def test_the_fewest_threads_that_answer_nearly_as_fast_win() -> None:
    rows = [
        threads._Row(count, None, threads._Figures(100.0, 10.0, seconds, 1))
        for count, seconds in ((8, 1.0), (4, 1.01), (2, 1.5))
    ]
    assert threads._chosen(rows) == 4


def whole(
    tmp_path: Path, session: str, threads: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    artifact = tmp_path / "artifact"
    artifact.mkdir(exist_ok=True)
    (artifact / "model").write_bytes(b"weights" * 10_000)
    how = {"context": 200, "kv": "f16", "threads": threads}
    order = {
        "session": session,
        "artifact": str(artifact),
        "settings": how,
        "prompt_tokens": 40,
        "new_tokens": 8,
        "repeats": 3,
    }
    work = run(
        "packager.measure.benchmark:measure",
        order,
        tmp_path / "log",
        {"PYTHONPATH": str(REPOSITORY)},
    )
    said = []
    while True:
        try:
            message = next(work)
            said += [message.text] if isinstance(message, Note) else []
        except StopIteration as stop:
            return stop.value.value, said


def test_the_number_of_threads_is_found_by_measurement_and_every_candidate_kept(
    tmp_path: Path,
) -> None:
    figures, _ = whole(tmp_path, "tests.support.byte_session:Threaded")
    search = figures["thread_search"]
    tried = [row["threads"] for row in search["candidates"]]
    assert tried == cores().fewer()
    assert figures["threads"] == search["threads"] == 1
    assert all(row["prefill_tps"] > 0 and row["token_ms"] > 0 for row in search["candidates"])
    assert (figures["load_cold_s"] is None) == any(
        text.startswith("cold load") for text in figures["left_out"]
    )


def test_a_number_of_threads_that_is_given_is_taken_without_a_search(tmp_path: Path) -> None:
    figures, _ = whole(tmp_path, "tests.support.byte_session:Threaded", threads=3)
    assert figures["threads"] == 3
    assert figures["thread_search"] is None


def test_throttling_is_a_rate_that_falls_while_nobody_else_works() -> None:
    def windows(rates: list[float], others: float | None) -> list[Window]:
        return [
            Window(at_s=5.0, decode_tps=rate, other_cpu_cores=others, temperature_c=90.0)
            for rate in rates
        ]

    falling = sustained.summary(120, windows([30, 30, 25, 20, 20, 20, 20, 20], 0.01))
    assert (falling.first_tps, falling.last_tps, falling.throttled) == (30, 20, True)
    assert falling.ratio == pytest.approx(2 / 3)
    assert falling.temperature_c_max == 90
    assert sustained.summary(120, windows([30, 29, 30, 29], None)).throttled is False
    assert sustained.summary(120, windows([30, 20, 20, 10], 1.0)).throttled is None


@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_a_sparkline_has_one_character_per_window(values: list[float]) -> None:
    assert len(sustained.sparkline(values)) in (len(values), 0)
    assert sustained.sparkline([1.0, 8.0]) == "▂█"


def test_a_setting_says_how_often_a_noisy_part_is_measured_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("QWEN_PACK_ATTEMPTS")
    assert allowed_attempts() == 3
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", " 1 ")
    assert allowed_attempts() == 1


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.5", "many", "9" * 5000, "²"])
def test_a_setting_that_is_no_number_of_attempts_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", text)
    with pytest.raises(PackError, match="QWEN_PACK_ATTEMPTS") as caught:
        allowed_attempts()
    assert caught.value.exit_code == ExitCode.USAGE
