"""Parameter counts: recomputed from every row's shape, and held against what was published."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from packager.catalog import Variant, load
from packager.catalog.counts import ParameterCount, expected, parameter_counts

ALL = load()
WITH_SHAPE = [variant for variant in ALL if variant.shape is not None]


def named(variant: Variant) -> str:
    return variant.name


def geometry(variant: Variant) -> tuple[Any, ...]:
    """What two variants must share to have the same number of parameters in their text decoder."""
    shape = variant.shape
    assert shape is not None
    return (
        shape.hidden,
        shape.layers,
        shape.heads,
        shape.kv_heads,
        shape.intermediate,
        shape.vocab,
        shape.tied,
        shape.experts,
        shape.hybrid,
    )


@pytest.mark.parametrize("variant", WITH_SHAPE, ids=named)
def test_the_parameters_of_the_text_decoder_are_the_sum_over_its_shape(variant: Variant) -> None:
    assert variant.shape is not None
    assert variant.shape.parameters() == variant.params_text
    if variant.params_active is not None:
        assert variant.shape.active_parameters() == variant.params_active
    assert (variant.params_active is not None) == (variant.shape.experts is not None)


@pytest.mark.parametrize("variant", WITH_SHAPE, ids=named)
def test_the_whole_is_the_text_decoder_with_its_encoders_and_the_draft_module_where_that_is_counted(
    variant: Variant,
) -> None:
    parts = (variant.params_text or 0) + (variant.params_vision or 0) + (variant.params_audio or 0)
    # Qwen3-Next's own count leaves its draft module out; Qwen3.5's has it in.
    draft = 0 if variant.model_type == "qwen3_next" else variant.params_mtp or 0
    assert variant.params_total == parts + draft


COUNTS = [(variant, count) for variant in ALL for count in parameter_counts(variant.repo_id)]


@pytest.mark.parametrize(
    ("variant", "count"),
    COUNTS,
    ids=lambda item: item.name if isinstance(item, Variant) else item.counts,
)
def test_every_published_count_is_what_the_shape_says(
    variant: Variant, count: ParameterCount
) -> None:
    value = expected(variant, count)
    if value is None:
        assert count.difference == "estimate" and count.value != variant.params_total
    elif count.counts == "stored":
        assert count.value == value
    else:
        assert abs(count.value / value - 1) <= count.tolerance


def test_a_difference_is_recorded_only_where_there_is_one() -> None:
    for variant, count in COUNTS:
        if count.difference is not None:
            assert count.value != variant.params_total and count.reason, variant.name


@cache
def counted() -> frozenset[tuple[Any, ...]]:
    """The geometries of which there is a published count."""
    return frozenset(
        geometry(other)
        for other, count in COUNTS
        if other.shape is not None and expected(other, count) is not None
    )


@pytest.mark.parametrize("variant", WITH_SHAPE, ids=named)
def test_every_row_is_held_against_a_count_of_its_own_or_of_its_geometry_or_against_its_name(
    variant: Variant,
) -> None:
    if geometry(variant) in counted():
        return
    label = re.search(r"-(\d+(?:\.\d+)?)([BT])(?:-|$)", variant.name)
    assert label is not None, "no published count and no size in the name"
    size = float(label[1]) * {"B": 1e9, "T": 1e12}[label[2]]
    # A name with a size counts what answers, not the encoder beside it.
    answers = (variant.params_total or 0) - (variant.params_vision or 0)
    assert answers == pytest.approx(size, rel=0.2)
