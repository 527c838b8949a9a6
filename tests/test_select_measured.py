"""Which of several artifacts is kept, by what was measured of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.need.workload import Preference
from packager.select.measured import Seen, best

SMALL = Seen(peak_bytes=500e6, decode_tps=20, bits_per_weight=4.5, divergence=0.05)
FAST = Seen(peak_bytes=900e6, decode_tps=40, bits_per_weight=4.2, divergence=0.06)
TRUE = Seen(peak_bytes=950e6, decode_tps=15, bits_per_weight=8.5, divergence=0.001)
EVEN = Seen(peak_bytes=600e6, decode_tps=35, bits_per_weight=6.0, divergence=0.01)
ALL = [FAST, TRUE, EVEN, SMALL]


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [("smallest", SMALL), ("speed", FAST), ("quality", TRUE), ("balanced", EVEN)],
)
def test_each_preference_takes_the_best_of_what_it_looks_at(
    prefer: Preference, expected: Seen
) -> None:
    assert ALL[best(ALL, prefer)] == expected


def test_without_a_divergence_of_all_the_bits_per_weight_stand_for_quality_and_beyond_eight_they_are_alike() -> (
    None
):
    found = [replace(SMALL, divergence=None), replace(TRUE, bits_per_weight=16, decode_tps=9), TRUE]
    assert best(found, "quality") == 2


@pytest.mark.parametrize("prefer", ["smallest", "quality", "speed", "balanced"])
def test_what_misses_a_budget_is_kept_only_where_everything_does(prefer: Preference) -> None:
    missing = replace(FAST, peak_bytes=1, decode_tps=1e6, divergence=0.0, missed=True)
    assert best([missing, SMALL], prefer) == 1
    assert best([missing, replace(SMALL, missed=True)], prefer) == 0


def test_equal_figures_fall_to_the_first() -> None:
    assert best([SMALL, SMALL], "speed") == 0


@given(
    st.lists(
        st.builds(
            Seen,
            st.floats(1e6, 1e12),
            st.floats(0.01, 1e5),
            st.floats(1, 32),
            st.none() | st.floats(0, 20),
        ),
        min_size=1,
    ),
    st.sampled_from(["smallest", "quality", "speed", "balanced"]),
)
def test_nothing_that_was_kept_is_beaten_on_every_count(
    found: list[Seen], prefer: Preference
) -> None:
    kept = found[best(found, prefer)]
    for other in found:
        bits = min(other.bits_per_weight, 8) > min(kept.bits_per_weight, 8)
        closer = (
            other.divergence is not None
            and kept.divergence is not None
            and other.divergence < kept.divergence
        )
        assert not (
            other.peak_bytes < kept.peak_bytes
            and other.decode_tps > kept.decode_tps
            and bits
            and closer
        )
