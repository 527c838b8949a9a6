"""What the smoke benchmark makes of the times it kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.measure.benchmark import measure
from packager.measure.gauges.load import busy_ticks
from packager.measure.trials import Trial, percentile, prompt_ids, quartile_spread, summary
from tests.support.byte_session import CLOCK, ByteSession, Recorder
from tests.support.make_checkpoint import Silent

TIMES = st.floats(1e-4, 10)


def test_rates_are_medians_over_trials_and_latencies_over_all_tokens() -> None:
    trials = [
        Trial(2.0, (0.1,) * 10, ()),
        Trial(1.0, (0.2,) * 10, ()),
        Trial(4.0, (0.05,) * 10, ()),
    ]
    figures = summary(trials, prompt_tokens=100, new_tokens=11)
    assert figures.ttft_ms == 2000
    assert figures.prefill_tps == 50
    assert figures.decode_tps == pytest.approx(10)
    assert figures.token_ms_median == pytest.approx(100)
    assert figures.token_ms_p95 == pytest.approx(200)
    assert figures.token_ms_p99 == pytest.approx(200)
    assert (figures.ttft_ms_p95, figures.ttft_ms_p99) == (
        pytest.approx(3800),
        pytest.approx(3960),
    )
    assert figures.spread == pytest.approx((15 - 7.5) / 10)
    assert figures.ttft_spread == pytest.approx((3 - 1.5) / 2)
    assert figures.repeats == 3
    assert figures.token_ms == ((100.0,) * 10, (200.0,) * 10, (50.0,) * 10)


@given(st.lists(TIMES, min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_lies_between_the_extremes_and_grows_with_its_share(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    assert ordered[0] <= percentile(ordered, share) <= ordered[-1] * (1 + 1e-12)
    assert percentile(ordered, 0) == ordered[0]
    assert percentile(ordered, 1) == ordered[-1]
    assert percentile(ordered, share) <= percentile(ordered, min(1.0, share + 0.1)) * (1 + 1e-12)


def test_one_hiccup_among_five_trials_is_no_spread_and_two_are() -> None:
    assert quartile_spread([5.0, 10.0, 10.0, 10.0, 10.0]) == 0
    assert quartile_spread([5.0, 5.0, 10.0, 10.0, 10.0]) == 0.5


def run(session: str, new_tokens: int = 8, context: int = 64, **how: Any) -> dict[str, Any]:
    settings = {"context": context, "kv": "f16", "threads": 3}
    order = {
        "artifact": "abc",
        "settings": settings,
        "prompt_tokens": 40,
        "new_tokens": new_tokens,
        "repeats": 3,
        **how,
    }
    return measure(Silent(), session=f"tests.support.byte_session:{session}", **order)


def test_a_measurement_says_what_it_measured_where_when_and_how() -> None:
    figures = run("ByteSession")
    assert (
        figures["prompt_tokens"],
        figures["new_tokens"],
        figures["repeats"],
        figures["threads"],
    ) == (40, 8, 3, 3)
    assert [len(trial) for trial in figures["token_ms"]] == [7, 7, 7]
    assert figures["deterministic"] is True
    assert figures["peak_memory_bytes"] >= figures["steady_memory_bytes"] > 0
    assert figures["machine"]["cores"] >= 1
    assert figures["measured_at"].startswith("20")
    assert figures["attempts"] == {"answers": 1}
    assert figures["noisy"] is bool(figures["noisy_because"])
    assert figures["sustained"] is None


def test_a_thorough_measurement_tells_the_rates_of_other_lengths_and_what_does_not_fit_the_context() -> (
    None
):
    figures = run("ByteSession", context=256, thorough=True, attempts=2)
    assert figures["prefill_128_tps"] > 0
    assert figures["prefill_512_tps"] is None
    assert figures["decode_empty_tps"] > 0
    assert figures["decode_full_tps"] > 0
    assert figures["full_context_tokens"] == 256 - 48
    assert figures["left_out"] == ["prefill of 512 tokens: the context has 256"]
    assert all(1 <= number <= 2 for number in figures["attempts"].values())


def test_a_quick_model_answers_until_chance_is_no_part_of_its_figures_and_never_without_end() -> (
    None
):
    figures = run("ByteSession", attempts=2)
    assert figures["repeats"] == len(figures["token_ms"]) == 40
    assert run("ByteSession")["repeats"] == 3


def test_no_answer_is_longer_than_the_context_and_no_prompt_is_used_twice_but_the_one_that_is_checked() -> (
    None
):
    run("Recorder", context=600, thorough=True)
    prompts = Recorder.latest.prompts
    assert max(map(len, prompts)) == 600 - 48
    assert prompts[0] == prompts[-1]
    assert len({bytes(prompt) for prompt in prompts}) == len(prompts) - 1


def test_a_machine_that_would_take_an_hour_measures_less_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("packager.measure.trials.time", CLOCK)
    monkeypatch.setattr("packager.measure.benchmark.time", CLOCK)
    figures = run("Sluggish", new_tokens=64, context=4096, thorough=True, repeats=5)
    assert figures["new_tokens"] == 16
    assert figures["full_context_tokens"] < 4096 - 48
    assert [text.split(":")[0] for text in figures["left_out"]] == [
        "answers of 16 tokens instead of 64",
        f"decoding with {figures['full_context_tokens']} tokens in the context of 4096",
    ]


@pytest.mark.slow
def test_a_sustained_run_tells_the_rate_of_every_window() -> None:
    figures = run("Steady", sustained_s=2.0)["sustained"]
    assert len(figures["windows"]) == 2
    assert [row["at_s"] for row in figures["windows"]] == pytest.approx([1.0, 2.0], abs=0.5)
    assert figures["ratio"] == pytest.approx(
        figures["windows"][1]["decode_tps"] / figures["windows"][0]["decode_tps"]
    )


def test_two_different_answers_to_one_prompt_fail_the_quality_gate() -> None:
    with pytest.raises(PackError, match="two different answers") as caught:
        run("FickleSession")
    assert caught.value.exit_code == ExitCode.BUDGET


def test_a_tokenizer_that_finds_nothing_in_any_text_ends_in_a_sentence() -> None:
    with pytest.raises(PackError, match="turns words into no tokens") as caught:
        run("DeafSession")
    assert caught.value.exit_code == ExitCode.INPUT


@given(st.integers(1, 300), st.integers(1, 1000))
def test_prompts_have_exactly_the_length_asked_for_and_are_the_same_every_time(
    count: int, seed: int
) -> None:
    model = ByteSession("", {})
    assert len(prompt_ids(model, count, seed)) == count
    assert prompt_ids(model, count, seed) == prompt_ids(model, count, seed)


def test_no_two_prompts_of_a_measurement_begin_alike() -> None:
    model = ByteSession("", {})
    starts = {bytes(prompt_ids(model, 512, seed)[:4]) for seed in range(1, 5)}
    assert len(starts) == 4


def test_time_that_the_host_of_a_virtual_machine_gave_to_others_counts_as_busy_and_waiting_does_not() -> (
    None
):
    user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice = (
        1,
        20,
        300,
        4000,
        50000,
        6,
        70,
        800,
        1,
        20,
    )
    line = (
        f"cpu  {user} {nice} {system} {idle} {iowait} {irq} {softirq} {steal} {guest} "
        f"{guest_nice}\n"
    )
    assert busy_ticks(line) == user + nice + system + irq + softirq + steal
