"""The selection: which candidates there are, what is said against each, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.need.workload import merge
from packager.select import Candidate, candidates, choose
from packager.select.preference import ordered, pareto_front
from tests.support.plain_runtime import GB, PLAIN, PlainRuntime, chat, fit, target, variants


def rules_against(found: Sequence[Candidate], name: str) -> set[str]:
    return {
        reason.rule
        for candidate in found
        if candidate.variant.name == name
        for reason in candidate.reasons
    }


# What is chosen


def test_for_chat_the_smallest_of_all_qwens_is_qwen3_0_6b() -> None:
    chosen = choose(fit(target(recipes=("plain:b4",)), merge({}, None)))
    assert chosen is not None
    assert (chosen.variant.name, chosen.recipe.id) == ("Qwen3-0.6B", "plain:b4")


def test_smaller_chat_models_fail_the_floor_on_instruction_following() -> None:
    found = fit(target(), chat())
    for name in ("Qwen2.5-0.5B-Instruct", "Qwen2-0.5B-Instruct", "Qwen1.5-0.5B-Chat"):
        assert "score" in rules_against(found, name)


def test_a_base_model_is_not_chosen_for_chat() -> None:
    assert rules_against(fit(target(), chat(), "Qwen3-0.6B-Base"), "Qwen3-0.6B-Base") >= {"tuning"}


def test_smallest_takes_the_least_peak_memory_among_variants_in_the_targets_own_recipe() -> None:
    found = fit(target(recipes=("plain:b8",)), chat(), "Qwen3-4B", "Qwen3-1.7B", "Qwen3-8B")
    assert [candidate.variant.name for candidate in found[:3]] == [
        "Qwen3-1.7B",
        "Qwen3-4B",
        "Qwen3-8B",
    ]
    assert {candidate.recipe.id for candidate in found[:3]} == {"plain:b8"}


def test_a_recipe_that_the_target_prefers_is_taken_although_a_smaller_one_would_fit() -> None:
    chosen = choose(fit(target(recipes=("plain:b16", "plain:b8")), chat(), "Qwen3-0.6B"))
    assert chosen is not None and chosen.recipe.id == "plain:b16"


def test_a_recipe_of_the_target_that_does_not_fit_gives_way_to_the_next_of_its_list() -> None:
    chosen = choose(fit(target(1.2 * GB, recipes=("plain:b16", "plain:b8")), chat(), "Qwen3-0.6B"))
    assert chosen is not None and chosen.recipe.id == "plain:b8"


def test_without_recipes_of_the_target_the_smallest_at_four_bits_or_more_is_taken() -> None:
    chosen = choose(fit(target(), chat(), "Qwen3-0.6B"))
    assert chosen is not None and chosen.recipe.id == "plain:b4"


def test_a_recipe_under_four_bits_is_taken_only_where_no_other_fits() -> None:
    chosen = choose(fit(target(0.65 * GB), chat(), "Qwen3-0.6B"))
    assert chosen is not None and chosen.recipe.id == "plain:b2" and chosen.coarse


def test_a_larger_variant_in_four_bits_stands_before_a_smaller_one_in_two() -> None:
    # 0.6B takes 768 MB at 4 bits; 650 MB hold it only at 2, and 0.5B with its small cache at 4.
    workload = chat(min_scores={"IFEval": 20.0})
    chosen = choose(fit(target(0.65 * GB), workload, "Qwen3-0.6B", "Qwen2.5-0.5B-Instruct"))
    assert chosen is not None and (chosen.variant.name, chosen.recipe.id) == (
        "Qwen2.5-0.5B-Instruct",
        "plain:b4",
    )


def test_the_first_runtime_of_the_target_is_preferred_even_if_a_later_one_needs_less() -> None:
    lean = PlainRuntime("lean", "lean", (4,))
    roomy = PlainRuntime("roomy", "roomy", (8,))
    device = target(runtimes=("roomy", "lean"))
    chosen = choose(fit(device, chat(), "Qwen3-0.6B", runtimes=(lean, roomy)))
    assert chosen is not None and chosen.runtime == "roomy"


def test_a_later_runtime_is_taken_where_the_first_does_not_build_the_variant() -> None:
    dense, every = PlainRuntime("dense", "dense"), PlainRuntime("every", "every", dense_only=False)
    chosen = choose(
        fit(
            target(64 * GB, runtimes=("dense", "every")),
            chat(),
            "Qwen3-30B-A3B",
            runtimes=(dense, every),
        )
    )
    assert chosen is not None and chosen.runtime == "every"


def test_quality_takes_the_best_published_scores_that_fit() -> None:
    found = fit(
        target(12 * GB), chat(prefer="quality"), "Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B"
    )
    assert found[0].variant.name == "Qwen3-8B" and found[0].recipe.id == "plain:b8"
    qualities = [
        candidate.quality for candidate in found if candidate.passes and not candidate.coarse
    ]
    assert all(
        one is not None and two is not None and one >= two for one, two in pairwise(qualities)
    )


def test_without_scores_the_newer_family_comes_first_and_in_it_the_larger_variant() -> None:
    names = ("Qwen3-4B", "Qwen3-8B", "Qwen2.5-14B-Instruct")
    found = fit(target(64 * GB, recipes=("plain:b8",)), chat(prefer="quality"), *names)
    first: dict[str, Candidate] = {}
    for candidate in found:
        first.setdefault(candidate.variant.name, replace(candidate, quality=None))
    # The smaller size of the newer family came out weeks later.
    small = first["Qwen3-4B"]
    later = replace(small, variant=replace(small.variant, release_date="2025-06"))
    given = [first["Qwen2.5-14B-Instruct"], later, first["Qwen3-8B"]]
    names_in_order = [candidate.variant.name for candidate in ordered(given, "quality")]
    assert names_in_order == ["Qwen3-8B", "Qwen3-4B", "Qwen2.5-14B-Instruct"]
    scored = replace(later, quality=10.0)
    assert ordered([*given, scored], "quality")[0] is scored


def test_quality_does_not_spend_memory_on_more_than_eight_bits() -> None:
    found = fit(target(64 * GB), chat(prefer="quality"), "Qwen3-0.6B", "Qwen3-1.7B")
    assert (found[0].variant.name, found[0].recipe.id) == ("Qwen3-1.7B", "plain:b8")


def test_balanced_weighs_each_variant_in_the_recipe_that_the_target_prefers() -> None:
    found = fit(
        target(64 * GB, recipes=("plain:b8",)),
        chat(prefer="balanced"),
        "Qwen3-0.6B",
        "Qwen3-1.7B",
        "Qwen3-4B",
        every=True,
    )
    assert found[0].recipe.id == "plain:b8"


def test_speed_takes_the_fastest_at_four_bits_or_more() -> None:
    found = fit(target(), chat(prefer="speed"), "Qwen3-0.6B", "Qwen3-1.7B")
    assert (found[0].variant.name, found[0].recipe.id) == ("Qwen3-0.6B", "plain:b4")
    fine = [candidate.forecast.decode_tps for candidate in found if not candidate.coarse]
    assert fine == sorted(fine, reverse=True)


def test_balanced_takes_neither_the_smallest_nor_the_largest_of_a_steep_front() -> None:
    found = fit(
        target(64 * GB),
        chat(prefer="balanced"),
        "Qwen3-0.6B",
        "Qwen3-1.7B",
        "Qwen3-4B",
        "Qwen3-8B",
        "Qwen3-14B",
        "Qwen3-32B",
    )
    assert found[0].verdict == "chosen"
    assert found[0].variant.name in ("Qwen3-1.7B", "Qwen3-4B")


@given(st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), max_size=30))
def test_no_point_of_a_pareto_front_is_beaten_and_every_other_one_is(
    points: list[tuple[float, float, float]],
) -> None:
    def beats(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
        return one != two and all(ours >= theirs for ours, theirs in zip(one, two, strict=True))

    front = pareto_front(points)
    for point in set(points):
        assert (point in front) == (not any(beats(other, point) for other in points))


@pytest.mark.parametrize("prefer", ["smallest", "quality", "speed", "balanced"])
def test_the_order_does_not_depend_on_the_order_of_the_catalogue(prefer: Any) -> None:
    device, workload = target(), chat(prefer=prefer)
    forward = candidates(device, workload, catalog.load(), (PLAIN,))
    backward = candidates(device, workload, tuple(reversed(catalog.load())), (PLAIN,))
    assert [candidate.as_dict() for candidate in forward] == [
        candidate.as_dict() for candidate in backward
    ]


def test_equal_candidates_are_put_in_the_order_of_their_names() -> None:
    one = fit(target(), chat(), "Qwen3-0.6B")[0]
    twins = [
        replace(one, variant=replace(one.variant, repo_id=f"Qwen/{name}"), verdict="fits")
        for name in "ba"
    ]
    for prefer in ("smallest", "quality", "speed", "balanced"):
        assert [candidate.variant.name for candidate in ordered(twins, prefer)] == ["a", "b"]


# What is said against a candidate


def test_a_rejected_candidate_says_rule_needed_and_had_in_words_and_numbers() -> None:
    found = fit(target(1 * GB), chat(), "Qwen3-0.6B", recipe="plain:b16")
    (reason,) = found[0].reasons
    # 596,049,920 weights of two bytes, and 2 x 28 x 8 x 128 elements of two bytes for each of 4096
    # tokens.
    assert reason.needs_value == 596_049_920 * 2 + 2 * 28 * 8 * 128 * 4096 * 2
    assert (reason.rule, reason.needs, reason.has, reason.has_value) == (
        "memory",
        "1.66 GB",
        "1.00 GB",
        1e9,
    )


def test_every_failed_rule_is_listed_not_only_the_first() -> None:
    workload = chat(max_artifact_bytes=10**8)
    workload = replace(workload, min_decode_tps=1000.0, max_ttft_ms=1.0)
    found = fit(target(1 * GB, storage=10**9), workload, "Qwen3-4B", recipe="plain:b16")
    assert [reason.rule for reason in found[0].reasons] == [
        "memory",
        "storage",
        "artifact",
        "decode",
        "ttft",
    ]


def test_the_limit_on_memory_is_the_smaller_of_the_devices_and_the_users() -> None:
    found = fit(target(16 * GB), chat(max_memory_bytes=1 * GB), "Qwen3-0.6B", recipe="plain:b16")
    assert found[0].reasons[0].has_value == 1e9
    assert not fit(
        target(16 * GB), chat(max_memory_bytes=20 * GB), "Qwen3-0.6B", recipe="plain:b16"
    )[0].reasons


def test_memory_given_by_the_caller_takes_the_place_of_the_devices() -> None:
    assert fit(target(16 * GB), chat(), "Qwen3-0.6B", available_bytes=0)[0].reasons[0].has == "0 B"


def test_a_research_licence_is_chosen_only_if_it_is_allowed() -> None:
    strict, open_to_all = (
        fit(target(), chat(), "Qwen2.5-3B-Instruct"),
        fit(target(), chat(licenses=("any",)), "Qwen2.5-3B-Instruct"),
    )
    assert rules_against(strict, "Qwen2.5-3B-Instruct") == {"licence"}
    assert choose(open_to_all) is not None
    assert any("forbids commercial use" in note for note in open_to_all[0].notes)


def test_a_list_of_licences_is_exact() -> None:
    found = fit(target(), chat(licenses=("qwen-research",)), "Qwen2.5-3B-Instruct", "Qwen3-4B")
    assert (
        next(candidate.variant.name for candidate in found if candidate.passes)
        == "Qwen2.5-3B-Instruct"
    )
    assert "licence" in rules_against(found, "Qwen3-4B")


def test_a_context_beyond_the_native_one_is_noted_and_beyond_the_extended_one_refused() -> None:
    device = target(1000 * GB)
    extended = fit(device, chat(context=65536), "Qwen3-4B")
    assert extended[0].passes and any("YaRN" in note for note in extended[0].notes)
    assert "context" in rules_against(fit(device, chat(context=200_000), "Qwen3-4B"), "Qwen3-4B")


def test_a_text_model_does_not_serve_pictures() -> None:
    assert "modality" in rules_against(
        fit(target(), replace(merge({"use_case": "vision"}, None)), "Qwen3-4B"), "Qwen3-4B"
    )


def test_a_score_that_nobody_published_is_not_taken_for_passed() -> None:
    found = fit(target(), chat(), "Qwen1.5-4B-Chat")
    assert [reason.has for reason in found[0].reasons if reason.rule == "score"] == [
        "no published score"
    ]


def test_scores_of_thinking_do_not_count_where_answers_come_at_once() -> None:
    assert "score" in rules_against(
        fit(target(), chat(), "Qwen3-4B-Thinking-2507"), "Qwen3-4B-Thinking-2507"
    )


def test_a_score_asked_for_takes_the_place_of_the_use_cases_floor() -> None:
    lenient = fit(target(), chat(min_scores={"IFEval": 25.0}), "Qwen2.5-0.5B-Instruct")
    strict = fit(target(), chat(min_scores={"IFEval": 80.0}), "Qwen3-0.6B")
    assert choose(lenient) is not None
    assert strict[0].reasons[0].needs == "IFEval of 80 or more"


def test_a_named_variant_is_forgiven_its_scores_and_its_tuning_with_a_note() -> None:
    found = fit(target(), chat(), "Qwen3-0.6B-Base", named=True)
    assert choose(found) is not None
    assert any("Accepted because it was named" in note for note in found[0].notes)


def test_a_single_variant_counts_as_named() -> None:
    assert (
        choose(candidates(target(), chat(), variants("Qwen2.5-0.5B-Instruct"), (PLAIN,)))
        is not None
    )


def test_a_named_variant_is_not_forgiven_what_the_device_cannot_do() -> None:
    found = fit(target(1 * GB), chat(), "Qwen3-32B", named=True)
    assert choose(found) is None and rules_against(found, "Qwen3-32B") == {"memory"}


def test_what_no_runtime_builds_has_no_sizes_in_json() -> None:
    rejected = fit(target(64 * GB), chat(), "Qwen3-30B-A3B")[0].as_dict()
    assert rejected["reasons"][0]["rule"] == "runtime"
    assert (
        rejected["footprint"] is None
        and rejected["forecast"] is None
        and rejected["artifact_bytes"] is None
    )


def test_a_candidate_in_json_has_the_fields_of_the_contract() -> None:
    chosen = fit(target(), chat(), "Qwen3-0.6B")[0].as_dict()
    assert (
        chosen["variant"] == "Qwen/Qwen3-0.6B"
        and chosen["verdict"] == "chosen"
        and chosen["context"] == 4096
    )
    assert {"weights", "kv_cache", "compute", "overhead", "total"} <= chosen["footprint"].keys()
    assert {"prefill_tps", "decode_tps", "ttft_ms", "low", "high", "confidence"} <= chosen[
        "forecast"
    ].keys()
    assert {"prefill_low", "prefill_high", "ttft_low_ms", "ttft_high_ms"} <= chosen[
        "forecast"
    ].keys()
    assert chosen["scores"] == {"IFEval": 54.5, "MMLU-Redux": 44.6}


def test_a_runtime_that_does_not_build_a_variant_says_so_once() -> None:
    assert len(fit(target(64 * GB), chat(), "Qwen3-30B-A3B")) == 1
