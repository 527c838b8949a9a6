"""The table of candidates without a screen: filter, order, folding, columns, and the bars in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import tui_data as data
from tui.bars import bar, span, split
from tui.table import KEYS, View, haystack, rate, wait
from tui.widgets.candidates import layout

pytestmark = pytest.mark.slow

HAYSTACKS = [haystack(one) for one in data.CANDIDATES]


@given(st.text(alphabet="qwen3gfu:_ 0468", max_size=12))
def test_a_filter_keeps_the_rows_that_hold_every_word(words: str) -> None:
    kept = View(words, grouped=False).rows(data.CANDIDATES, HAYSTACKS)
    assert kept == [
        index
        for index, text in enumerate(HAYSTACKS)
        if all(word in text for word in words.casefold().split())
    ]


@pytest.mark.parametrize("key", KEYS)
def test_every_column_sorts_all_rows_and_unknown_values_stand_last(key: str) -> None:
    forward, backward = (
        View(sort=key, reverse=reverse, grouped=False).rows(data.CANDIDATES, HAYSTACKS)
        for reverse in (False, True)
    )
    assert sorted(forward) == sorted(backward) == list(range(len(data.CANDIDATES)))
    if key in ("memory", "decode", "ttft", "artifact", "quality"):
        assert not data.CANDIDATES[forward[-1]].sized
        assert not data.CANDIDATES[backward[-1]].sized


def test_a_variant_stands_once_in_the_best_of_what_the_filter_leaves_and_unfolds_into_all_of_it() -> (
    None
):
    folded = [data.CANDIDATES[row] for row in View().rows(data.CANDIDATES, HAYSTACKS)]
    assert (
        len(folded)
        == len({one.variant.repo_id for one in data.CANDIDATES})
        == len({one.variant.repo_id for one in folded})
    )
    assert folded[0] is data.CHOSEN
    filtered = View("q8_0 0.6b").rows(data.CANDIDATES, HAYSTACKS)
    assert [data.CANDIDATES[row].recipe.id for row in filtered] == ["gguf:Q8_0"]
    name = data.CHOSEN.variant.repo_id
    unfolded = [
        data.CANDIDATES[row]
        for row in View(unfolded=frozenset({name})).rows(data.CANDIDATES, HAYSTACKS)
    ]
    assert [one.variant.repo_id for one in unfolded][:6].count(name) == 5
    assert (
        View().more(data.CANDIDATES, HAYSTACKS)[name] == 5
        and View(grouped=False).more(data.CANDIDATES, HAYSTACKS) == {}
    )


def test_the_best_stands_first_whichever_way_is_better() -> None:
    def first(key: str) -> Any:
        return data.CANDIDATES[View(sort=key).rows(data.CANDIDATES, HAYSTACKS)[0]]

    sized = [one for one in data.CANDIDATES if one.sized]
    assert first("decode").forecast.decode_tps == max(one.forecast.decode_tps for one in sized)
    assert first("memory").footprint.peak == min(one.footprint.peak for one in sized)


def test_rejected_rows_can_be_hidden() -> None:
    assert all(
        data.CANDIDATES[index].passes
        for index in View(rejected=False).rows(data.CANDIDATES, HAYSTACKS)
    )


@given(st.integers(50, 300))
def test_the_columns_fit_the_width_and_the_names_never_vanish(width: int) -> None:
    found = layout(width)
    used = 2 + sum(cells + 1 + (bar_cells + 1 if bar_cells else 0) for _, cells, bar_cells in found)
    assert used <= max(width, 68)
    assert [column.key for column, _, _ in found][:2] == ["variant", "recipe"]


@given(st.floats(-1, 2), st.integers(0, 60))
def test_a_bar_is_as_wide_as_asked_and_shows_whatever_is_above_zero(
    share: float, width: int
) -> None:
    text = bar(share, width)
    assert len(text) == width
    assert (text.strip() != "") == (share > 0 and width > 0)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=6), st.integers(6, 200))
def test_pieces_of_a_stacked_bar_fill_it_and_none_that_is_there_vanishes(
    parts: list[int], width: int
) -> None:
    cells = split(parts, width)
    assert sum(cells) == (width if sum(parts) else 0)
    assert all((count > 0) == (part > 0) for part, count in zip(parts, cells, strict=True))


def test_a_range_marks_low_middle_and_high() -> None:
    assert span(2, 5, 8, 10, 11) == "··├──●──┤··"


def test_rates_and_waits_keep_three_digits() -> None:
    assert [rate(value) for value in (0.5234, 12.34, 128.4)] == ["0.52", "12.3", "128"]
    assert [wait(value) for value in (320, 4210, 200_000)] == ["320 ms", "4.2 s", "3 min"]
