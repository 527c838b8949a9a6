"""Forecasts on devices that were never measured here lie near what others have published about
them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.published import FEW, Pair, classes, pairs
from packager.errors import ExitCode, PackError
from targets import published, registry

# Shapes that are not in the catalogue can only be sized with the engine; the benchmark holds them
# against their forecasts too.
ROWS = [row for row in published.rows() if row.known]
PAIRS = pairs(ROWS)
GOOD = (
    '[sources]\nhere = "a table"\n[[rows]]\ndevice = "d"\nvariant = "Qwen3-0.6B"\nrecipe = '
    '"gguf:Q8_0"\n' + ('filled = 64\ndecode = 10.0\nuse = "fit"\nsource = "here"\n')
)


def of(figure: str, device_class: str, model_class: str = "") -> list[Pair]:
    return [
        pair
        for pair in PAIRS
        if (pair.figure, pair.device_class) == (figure, device_class)
        and model_class in ("", pair.model_class)
    ]


def errors(found: Sequence[Pair]) -> list[float]:
    return [pair.error_percent for pair in found]


@pytest.mark.parametrize(
    "one",
    classes(PAIRS),
    ids=lambda one: f"{one['figure']}-{one['device_class']}-{one['model_class']}",
)
def test_in_every_class_with_enough_rows_the_median_is_near_and_four_of_five_lie_in_the_range(
    one: dict[str, object],
) -> None:
    assert one["within"] is not False, one
    assert one["enough"] == (isinstance(one["rows"], int) and one["rows"] >= FEW)


def test_rows_that_nothing_was_fitted_to_are_as_near_as_the_others() -> None:
    held_back = [pair for pair in PAIRS if pair.use == "check"]
    assert len(held_back) > len(PAIRS) / 3
    assert abs(statistics.median(errors(held_back))) <= 10
    assert sum(pair.inside for pair in held_back) / len(held_back) >= 0.8


def test_ranges_are_no_wider_than_the_published_rows_need() -> None:
    held_back = [pair for pair in PAIRS if pair.use == "check"]
    assert sum(pair.inside for pair in held_back) / len(held_back) <= 0.95


def test_mixtures_of_experts_are_not_forecast_as_if_their_kernels_started_for_nothing() -> None:
    assert max(map(abs, errors(of("decode", "gpu", "mixture")))) <= 25


def test_a_small_hybrid_reads_a_prompt_at_the_rate_that_was_published() -> None:
    small = [pair for pair in PAIRS if pair.model == "Qwen3.5-0.8B" and pair.figure == "prefill"]
    assert len(small) >= 4
    assert max(map(abs, errors(small))) <= 50


def test_decoding_behind_a_long_prompt_is_as_near_as_behind_a_short_one() -> None:
    long = [row for row in ROWS if row.filled >= 4096]
    assert len(long) >= 5
    assert max(map(abs, errors([pair for pair in pairs(long) if pair.figure == "decode"]))) <= 20


def test_every_row_names_a_device_of_ours() -> None:
    assert {row.device for row in published.rows()} <= set(registry.target_names())


def test_a_row_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "published.toml").write_text(GOOD)
    (row,) = published.rows(tmp_path / "published.toml")
    assert (row.model, row.decode, row.prefill, row.source) == ("Qwen3-0.6B", 10.0, None, "a table")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('use = "fit"', 'use = "both"'),
        ('source = "here"', 'source = "nowhere"'),
        ("filled = 64\n", ""),
        ("decode = 10.0", "decode = -1.0"),
        ("decode = 10.0", "decode = nan"),
        ("decode = 10.0", 'decode = "10"'),
        ("filled = 64\ndecode = 10.0\n", ""),
        ('variant = "Qwen3-0.6B"\n', ""),
        ('variant = "Qwen3-0.6B"', 'shape = "none"'),
        ('recipe = "gguf:Q8_0"', 'recipe = "gguf:Q8_0"\nspeed = 3.0'),
    ],
)
def test_a_slip_in_a_row_is_refused_with_file_and_number(
    old: str, new: str, tmp_path: Path
) -> None:
    (tmp_path / "published.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(PackError, match=r"published\.toml: rows\[0\]") as caught:
        published.rows(tmp_path / "published.toml")
    assert caught.value.exit_code == ExitCode.INPUT
