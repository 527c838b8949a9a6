"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.units import human_bytes, human_count, human_rate, human_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_234_567, "1.23 MB"),
        (43_210_000_000, "43.2 GB"),
    ],
)
def test_bytes_are_decimal_with_three_digits(count: int, text: str) -> None:
    assert human_bytes(count) == text


@given(st.floats(1000, 1e16))
def test_bytes_lose_less_than_one_percent(count: float) -> None:
    value, unit = human_bytes(count).split()
    scale = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(value) * scale == pytest.approx(count, rel=0.006)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 0 s"),
        (75, "1 min 15 s"),
    ],
)
def test_seconds_go_from_milliseconds_to_minutes(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(596_049_920, "596M"), (7_615_616_512, "7.62B"), (30_532_122_624, "30.5B"), (12, "12")],
)
def test_parameters_read_like_model_names(count: int, text: str) -> None:
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0"), (0.00003124, "0.0000312"), (0.915, "0.915"), (69.84, "69.8"), (9168.4, "9170")],
)
def test_a_rate_has_three_digits_and_no_power_of_ten(rate: float, text: str) -> None:
    assert human_rate(rate) == text
