"""Forecasts: two rates of a device and the bytes and operations of a shape give tokens per second
and a range."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.device.target import Confidence
from packager.errors import ExitCode, PackError
from packager.predict.forecast import (
    SPREADS,
    Extra,
    Forecast,
    Speed,
    expert_parameters,
    predict,
    prefill_operations,
    prompt_parameters,
)
from packager.shape import Shape

SHAPES = [variant.shape for variant in catalog.load() if variant.shape is not None]
RATES = st.floats(1e6, 1e16)


def shape_of(name: str) -> Shape:
    shape = catalog.find(name).shape
    assert shape is not None
    return shape


def forecast(
    decode_bytes: int = 10**9, prompt: int = 512, bandwidth: float = 40e9, compute: float = 400e9
) -> Forecast:
    return predict(shape_of("Qwen3-0.6B"), decode_bytes, prompt, bandwidth, compute, "estimated")


def test_decode_is_bandwidth_over_the_bytes_of_a_token() -> None:
    assert forecast(decode_bytes=10**9, bandwidth=40e9).decode_tps == 40


def test_prefill_is_compute_over_two_operations_per_weight_and_the_attention() -> None:
    # 28 layers, 16 heads of 128; a token attends to half of the 512 on average, with keys and with
    # values.
    operations = 2 * (596_049_920 - 151_936 * 1024) + 2 * 28 * 16 * 128 * 512
    assert prefill_operations(shape_of("Qwen3-0.6B"), 512) == operations
    assert forecast(prompt=512, compute=float(operations) * 100).prefill_tps == 100


def test_the_first_token_comes_after_the_prefill_and_one_step() -> None:
    seen = forecast(decode_bytes=4 * 10**9, bandwidth=40e9)
    assert seen.ttft_ms == pytest.approx(1000 * (512 / seen.prefill_tps + 0.1), rel=1e-5)


def test_of_a_mixture_only_the_active_experts_count() -> None:
    assert prompt_parameters(shape_of("Qwen3-30B-A3B")) == 3_353_032_704 - 2 * 151_936 * 2048


@pytest.mark.parametrize("confidence", ["measured", "same-class", "estimated"])
def test_where_bytes_alone_take_the_time_the_range_is_what_the_rate_may_lack_and_its_inverse(
    confidence: Confidence,
) -> None:
    seen, spread = (
        predict(shape_of("Qwen3-0.6B"), 10**9, 512, 100e9, 1e12, confidence),
        SPREADS[confidence],
    )
    assert (seen.low, seen.high) == (
        pytest.approx(100 * (1 - spread.fraction)),
        pytest.approx(100 / (1 - spread.fraction), rel=1e-4),
    )
    assert seen.prefill_low == pytest.approx(seen.prefill_tps * (1 - spread.compute), rel=1e-4)
    assert spread.reason


def test_the_range_widens_as_the_confidence_falls() -> None:
    measured, same, estimated = (
        predict(shape_of("Qwen3-4B"), 10**9, 512, 1e11, 1e12, word) for word in SPREADS
    )
    for low, high in (
        ("low", "high"),
        ("prefill_low", "prefill_high"),
        ("ttft_low_ms", "ttft_high_ms"),
    ):
        assert getattr(estimated, low) < getattr(same, low) < getattr(measured, low)
        assert getattr(measured, high) < getattr(same, high) < getattr(estimated, high)


def test_errors_that_know_nothing_of_each_other_add_up_less_than_their_sum() -> None:
    # Half of the time goes to bytes, half to starts of kernels: each may take longer by its own
    # share.
    spread = SPREADS["same-class"]
    bytes_longer, starts_longer = (
        1 / (1 - share) - 1 for share in (spread.fraction, spread.operations)
    )
    seen = predict(
        shape_of("Qwen3-0.6B"), 10**9, 512, 1e11, 1e12, "same-class", extra=Extra(token=0.01)
    )
    assert seen.decode_tps == 50
    together = ((0.5 * bytes_longer) ** 2 + (0.5 * starts_longer) ** 2) ** 0.5
    assert 1 / seen.low == pytest.approx(0.02 * (1 + together), rel=1e-3)
    assert together < 0.5 * bytes_longer + 0.5 * starts_longer


def test_experts_and_recurrent_states_make_a_prompt_slower() -> None:
    mixture, hybrid = shape_of("Qwen3-30B-A3B"), shape_of("Qwen3.5-0.8B")
    plain = predict(mixture, 10**9, 512, 1e11, 1e12, "measured")
    few = predict(mixture, 10**9, 512, 1e11, 1e12, "measured", Speed(experts=0.5))
    # What a token of the prompt is multiplied with is two thirds experts, at half the rate.
    slower = 1 + 2 * expert_parameters(mixture) / prefill_operations(mixture, 512)
    assert plain.prefill_tps / few.prefill_tps == pytest.approx(slower, rel=1e-4)
    whole, states = (
        predict(hybrid, 10**9, 512, 1e11, 1e12, "measured", Speed(recurrent=share))
        for share in (0, 0.02)
    )
    seconds = 1 / states.prefill_tps - 1 / whole.prefill_tps
    assert seconds == pytest.approx(6 * 18 * 16 * 128 * 128 / (1e12 * 0.02), rel=1e-2)


def test_published_decode_rates_of_one_processor_follow_from_one_bandwidth() -> None:
    """Ryzen 7 7840HS, llama.cpp on 8 threads; file sizes of Qwen's own GGUF repositories (Q8_0 0.6B
    639 MB, Q4_K_M 4B 2.50, 8B 5.03 GB)."""
    for name, size, published in (
        ("Qwen3-0.6B", 639e6, 81.5),
        ("Qwen3-4B", 2.50e9, 22.3),
        ("Qwen3-8B", 5.03e9, 12.3),
    ):
        seen = predict(shape_of(name), int(size), 512, 55e9, 1e12, "measured")
        assert seen.low <= published <= seen.high, name


@given(st.sampled_from(SHAPES), st.integers(0, 2**62), st.integers(1, 2**24), RATES, RATES)
def test_every_forecast_is_finite_and_inside_its_own_range(
    shape: Shape, size: int, prompt: int, bandwidth: float, compute: float
) -> None:
    seen = predict(shape, size, prompt, bandwidth, compute, "estimated")
    assert all(
        isfinite(value) and value >= 0
        for value in (seen.prefill_tps, seen.decode_tps, seen.ttft_ms, seen.low, seen.high)
    )
    assert seen.low <= seen.decode_tps <= seen.high
    assert seen.prefill_low <= seen.prefill_tps <= seen.prefill_high
    assert seen.ttft_low_ms <= seen.ttft_ms <= seen.ttft_high_ms


@given(st.sampled_from(SHAPES), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_longer_prompt_never_answers_sooner(shape: Shape, one: int, two: int) -> None:
    short, long = (
        predict(shape, 10**9, prompt, 40e9, 400e9, "measured").ttft_ms
        for prompt in sorted((one, two))
    )
    assert short <= long


@pytest.mark.parametrize(
    ("bandwidth", "compute"),
    [(0, 1e12), (1e9, 0), (-1e9, 1e12), (float("nan"), 1e12), (float("inf"), 1e12)],
)
def test_rates_from_which_no_speed_follows_are_refused(bandwidth: float, compute: float) -> None:
    with pytest.raises(PackError, match="No speed follows") as caught:
        forecast(bandwidth=bandwidth, compute=compute)
    assert caught.value.exit_code == ExitCode.USAGE
