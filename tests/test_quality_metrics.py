"""Divergence, agreement and perplexity: the arithmetic of the quality gate, against its
definitions."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from packager.quality.metrics import Comparison, Figures, log_softmax

pytestmark = pytest.mark.slow

VOCABULARY = 7
logits = st.floats(-30, 30, width=32)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any, list[int]]:
    """Logits of a reference and of a model over the same tokens, and the tokens that follow."""
    tokens = draw(st.integers(1, 40))
    one, two = (draw(arrays(np.float32, (tokens, VOCABULARY), elements=logits)) for _ in range(2))
    return (
        one,
        two,
        draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=tokens, max_size=tokens)),
    )


def compared(reference: Any, model: Any, targets: list[int]) -> Figures:
    found = Comparison()
    found.add(reference, model, targets)
    return found.figures()


@given(pairs())
def test_divergence_is_what_its_definition_says(given_: tuple[Any, Any, list[int]]) -> None:
    reference, model, targets = given_
    wanted = []
    for row, other in zip(reference.astype(float), model.astype(float), strict=True):
        p, q = (
            np.exp(values - values.max()) / np.exp(values - values.max()).sum()
            for values in (row, other)
        )
        wanted.append(
            sum(
                a * (math.log(a) - math.log(b)) for a, b in zip(p.tolist(), q.tolist(), strict=True)
            )
        )
    found = compared(reference, model, targets)
    assert found.kl_mean == pytest.approx(np.mean(wanted), rel=1e-5, abs=1e-5)
    assert found.kl_max == pytest.approx(max(wanted), rel=1e-5, abs=1e-5)
    assert found.tokens == len(targets)


@given(pairs())
def test_divergence_is_never_negative_and_its_figures_are_in_order(
    given_: tuple[Any, Any, list[int]],
) -> None:
    found = compared(*given_)
    assert 0 <= found.kl_mean <= found.kl_max
    assert 0 <= found.kl_p95 <= found.kl_max
    assert 0 <= found.top1 <= 1


@given(pairs())
def test_a_model_compared_with_itself_has_lost_nothing(given_: tuple[Any, Any, list[int]]) -> None:
    reference, _, targets = given_
    found = compared(reference, reference, targets)
    assert (found.kl_mean, found.kl_max, found.top1, found.perplexity_ratio) == (0, 0, 1, 1)


@given(pairs(), st.floats(-5, 5), st.floats(-5, 5))
def test_a_constant_added_to_all_logits_changes_nothing(
    given_: tuple[Any, Any, list[int]], one: float, two: float
) -> None:
    reference, model, targets = given_
    before, after = (
        compared(reference, model, targets),
        compared(reference + np.float32(one), model + np.float32(two), targets),
    )
    for name in ("kl_mean", "kl_p95", "kl_max", "perplexity", "reference_perplexity"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-4, abs=1e-4)


@given(pairs(), st.integers(0, 40))
def test_how_the_tokens_are_cut_into_blocks_changes_nothing(
    given_: tuple[Any, Any, list[int]], cut: int
) -> None:
    reference, model, targets = given_
    whole, parts, first, second = Comparison(), Comparison(), Comparison(), Comparison()
    whole.add(reference, model, targets)
    for part, rows in ((first, slice(None, cut)), (second, slice(cut, None))):
        part.add(reference[rows], model[rows], targets[rows])
        parts.extend(part)
    assert asdict(parts.figures()) == pytest.approx(asdict(whole.figures()), rel=1e-9, nan_ok=True)


@given(pairs())
def test_perplexity_is_the_exponential_of_the_mean_surprise_of_the_true_tokens(
    given_: tuple[Any, Any, list[int]],
) -> None:
    reference, model, targets = given_
    found = compared(reference, model, targets)
    rows = range(len(targets))
    for values, perplexity in ((model, found.perplexity), (reference, found.reference_perplexity)):
        probabilities = np.exp(log_softmax(values).astype(float))[rows, targets]
        assert perplexity == pytest.approx(math.exp(-np.mean(np.log(probabilities))), rel=1e-4)
    assert found.perplexity_ratio == pytest.approx(found.perplexity / found.reference_perplexity)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large_and_diverges_by_what_the_other_knows() -> (
    None
):
    certain = np.full((3, 4), -50.0, dtype=np.float32)
    certain[:, 2] = 0
    found = compared(certain, np.zeros((3, 4), dtype=np.float32), [2, 2, 2])
    assert found.perplexity == pytest.approx(4)
    assert found.reference_perplexity == pytest.approx(1)
    assert found.kl_mean == pytest.approx(math.log(4))


def test_the_share_of_equal_top_tokens_and_the_percentile_are_counted_over_all_tokens() -> None:
    reference = np.eye(20, dtype=np.float32) * 9
    model = reference.copy()
    model[19] = model[0]
    found = compared(reference, model, [0] * 20)
    assert found.top1 == 0.95
    assert found.kl_max > 8 and found.kl_p95 < 1 < found.kl_p99
    assert found.kl_error == pytest.approx(found.kl_max / 20)


def test_columns_behind_the_vocabulary_are_padding() -> None:
    reference = np.array([[1, 2, 3]], dtype=np.float32)
    padded = np.array([[1, 2, 3, 99]], dtype=np.float32)
    assert compared(reference, padded, [0]).kl_mean == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_no_number_is_counted_and_spoils_no_other(value: float) -> None:
    reference = np.array([[1, 2, 3], [3, 2, 1]], dtype=np.float32)
    model = reference.copy()
    model[0, 1] = value
    found = compared(reference, model, [0, 0])
    assert (found.tokens, found.broken, found.kl_mean, found.top1) == (2, 1, 0, 1)
    model[:] = value
    found = compared(reference, model, [0, 0])
    assert (found.tokens, found.broken) == (2, 2)
    assert found.as_dict()["kl_mean"] is None, "JSON has no word for it"


def test_rows_that_do_not_belong_together_are_a_mistake_of_the_caller() -> None:
    rows = np.zeros((2, 3), dtype=np.float32)
    for model, targets in ((rows[:1], [0, 0]), (rows, [0]), (rows[:, :2], [0, 0])):
        with pytest.raises(ValueError, match="do not agree"):
            compared(rows, model, targets)
