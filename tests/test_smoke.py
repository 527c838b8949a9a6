"""What the smoke benchmark makes of the times it kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.smoke import Trial, percentile, summary

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
