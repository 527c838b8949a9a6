"""Published scores: the first one counts, and protocols, modes and kinds are kept apart."""

from __future__ import annotations

import json
from pathlib import Path

from packager.catalog import find, load, score_of, scores
from packager.catalog.benchmarks import FILE, read_scores


def test_the_first_published_score_counts_and_says_how_it_was_measured() -> None:
    score = score_of(find("Qwen2.5-7B"), "mbpp")
    assert score is not None
    assert (score.value, score.kind, score.protocol) == (74.9, "base", "EvalPlus variant")
    # The Qwen3 report measured the same checkpoint with another protocol; both stay, neither
    # replaces the other.
    others = [item for item in scores("Qwen/Qwen2.5-7B") if item.benchmark == "MBPP"]
    assert [(item.value, item.protocol) for item in others] == [
        (74.9, "EvalPlus variant"),
        (63.4, "3-shot, re-evaluated for the Qwen3 report"),
    ]


def test_scores_with_and_without_thinking_are_kept_apart() -> None:
    variant = find("Qwen3-0.6B")
    values = {
        mode: score_of(variant, "MATH-500", mode) for mode in ("thinking", "non-thinking", None)
    }
    assert [score.value if score else None for score in values.values()] == [77.6, 55.2, 55.2]
    assert score_of(variant, "MATH-500", "dreaming") is None
    assert score_of(variant, "no such benchmark") is None


def test_no_variant_carries_scores_of_another_kind_and_no_score_is_without_a_variant() -> None:
    for variant in load():
        assert {score.kind for score in scores(variant.repo_id)} <= {
            "base" if variant.base else "instruct"
        }, variant.name
    assert set(read_scores(FILE)) <= {variant.repo_id for variant in load()}


def test_every_summarized_score_is_the_one_that_counts(shared: Path) -> None:
    summary = json.loads((shared / "facts" / "quality.json").read_text())["summary"]
    held = 0
    for row in summary.values():
        if row["repo_id"] is None:  # weights that were never published
            continue
        for benchmark, fact in row["scores"].items():
            score = score_of(find(row["repo_id"]), benchmark, row["mode"])
            assert score is not None and score.value == fact["score"], (row["repo_id"], benchmark)
            assert (score.mode, score.kind) == (row["mode"], row["base_or_instruct"])
            held += 1
    assert held > 600
