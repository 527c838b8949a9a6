"""What the smoke benchmark makes of the times it kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.smoke import Trial, busy_ticks, measure, percentile, prompt_ids, summary
from tests.byte_session import ByteSession
from tests.make_checkpoint import Silent

TIMES = st.floats(1e-4, 10)


def test_rates_are_medians_over_trials_and_latencies_over_all_tokens() -> None:
    trials = [Trial(2.0, (0.1,) * 10, ()), Trial(1.0, (0.2,) * 10, ()), Trial(4.0, (0.05,) * 10, ())]
    figures = summary(trials, prompt_tokens=100, new_tokens=11)
    assert figures["ttft_ms"] == 2000
    assert figures["prefill_tps"] == 50
    assert figures["decode_tps"] == pytest.approx(10)
    assert figures["token_ms_median"] == pytest.approx(100)
    assert figures["token_ms_p95"] == pytest.approx(200)
    assert figures["spread"] == pytest.approx((20 - 5) / 10)
    assert figures["repeats"] == 3
    assert figures["token_ms"] == [[100.0] * 10, [200.0] * 10, [50.0] * 10]


@given(st.lists(TIMES, min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_lies_between_the_extremes_and_grows_with_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= percentile(ordered, share) <= ordered[-1] * (1 + 1e-12)
    assert percentile(ordered, 0) == ordered[0]
    assert percentile(ordered, 1) == ordered[-1]
    assert percentile(ordered, share) <= percentile(ordered, min(1.0, share + 0.1)) * (1 + 1e-12)


def run(session: str, new_tokens: int = 8) -> dict[str, Any]:
    settings = {"context": 64, "kv": "f16", "threads": 3}
    name = f"tests.byte_session:{session}"
    return measure(Silent(), session=name, artifact="abc", settings=settings, prompt_tokens=40, new_tokens=new_tokens, repeats=3)


def test_a_measurement_says_what_it_measured_where_when_and_how() -> None:
    figures = run("ByteSession")
    assert (figures["prompt_tokens"], figures["new_tokens"], figures["repeats"], figures["threads"]) == (40, 8, 3, 3)
    assert [len(trial) for trial in figures["token_ms"]] == [7, 7, 7]
    assert figures["deterministic"] is True
    assert figures["peak_memory_bytes"] >= figures["steady_memory_bytes"] > 0
    assert figures["machine"]["cores"] >= 1
    assert figures["measured_at"].startswith("20")


def test_two_different_answers_to_one_prompt_fail_the_quality_gate() -> None:
    with pytest.raises(PackError, match="two different answers") as caught:
        run("FickleSession")
    assert caught.value.exit_code == ExitCode.BUDGET


def test_a_tokenizer_that_finds_nothing_in_any_text_ends_in_a_sentence() -> None:
    with pytest.raises(PackError, match="makes no tokens") as caught:
        run("DeafSession")
    assert caught.value.exit_code == ExitCode.INPUT


@given(st.integers(1, 300), st.integers(1, 1000))
def test_prompts_have_exactly_the_length_asked_for_and_are_the_same_every_time(count: int, seed: int) -> None:
    model = ByteSession("", {})
    assert len(prompt_ids(model, count, seed)) == count
    assert prompt_ids(model, count, seed) == prompt_ids(model, count, seed)


def test_no_two_prompts_of_a_measurement_begin_alike() -> None:
    model = ByteSession("", {})
    starts = {bytes(prompt_ids(model, 512, seed)[:4]) for seed in range(1, 5)}
    assert len(starts) == 4


def test_time_that_the_host_of_a_virtual_machine_gave_to_others_counts_as_busy_and_waiting_does_not() -> None:
    user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice = 1, 20, 300, 4000, 50000, 6, 70, 800, 1, 20
    line = f"cpu  {user} {nice} {system} {idle} {iowait} {irq} {softirq} {steal} {guest} {guest_nice}\n"
    assert busy_ticks(line) == user + nice + system + irq + softirq + steal
