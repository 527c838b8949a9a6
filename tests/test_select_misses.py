"""What is near where nothing fits, and the neighbours of what was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packager import catalog
from packager.device.target import Target
from packager.need.workload import Workload, merge
from packager.select import candidates, choose
from packager.select.misses import nearest_misses
from packager.select.steps import steps
from tests.support.plain_runtime import GB, PLAIN, chat, fit, target


def misses(device: Target, workload: Workload, *names: str, **more: Any) -> list[tuple[str, str]]:
    found = fit(device, workload, *names, **more)
    assert choose(found) is None
    return [
        (miss.candidate.variant.name, miss.flag)
        for miss in nearest_misses(device, workload, found, (PLAIN,))
    ]


def test_a_model_that_is_too_large_by_its_cache_would_fit_with_a_cache_of_eight_bits() -> None:
    # At 4 bits 298 MB of weights, and 940 MB of cache, which q8_0 makes 499 MB.
    assert misses(target(0.85 * GB), chat(context=8192), "Qwen3-0.6B") == [
        ("Qwen3-0.6B", "--recipe plain:b4/kv_q8_0")
    ]


def test_where_a_cache_of_eight_bits_does_not_do_half_the_context_does() -> None:
    assert misses(target(0.78 * GB), chat(context=8192), "Qwen3-0.6B", recipe="plain:b4") == [
        ("Qwen3-0.6B", "--context 4096")
    ]


def test_a_model_whose_recipe_is_too_large_would_fit_with_the_largest_smaller_one() -> None:
    found = misses(
        target(1.2 * GB), chat(context=512, prompt=256), "Qwen3-0.6B", recipe="plain:b16"
    )
    assert found == [("Qwen3-0.6B", "--recipe plain:b8")]


def test_a_rate_that_is_missed_is_proposed_as_it_is() -> None:
    found = misses(
        target(bandwidth=1e9), replace(chat(), min_decode_tps=5.7), "Qwen3-0.6B", recipe="plain:b4"
    )
    assert found == [("Qwen3-0.6B", "--recipe plain:b2")]


def test_a_larger_device_is_proposed_where_nothing_else_helps() -> None:
    small, large, huge = (
        target(0.1 * GB, name="small"),
        target(2 * GB, name="large"),
        target(99 * GB, name="huge"),
    )
    found = fit(small, chat(), "Qwen3-0.6B")
    (miss,) = nearest_misses(
        small, chat(), found, (PLAIN,), larger=((huge, chat()), (large, chat()))
    )
    assert (miss.flag, miss.then.passes) == ("--target large", True)


def test_a_larger_device_is_proposed_for_what_would_be_asked_of_it() -> None:
    small, large, huge = (
        target(0.1 * GB, name="small"),
        target(0.6 * GB, name="large"),
        target(99 * GB, name="huge"),
    )
    found = fit(small, chat(), "Qwen3-0.6B", recipe="plain:b4")
    # At 4096 tokens the large one would do; it is asked for 8192, as its own file has it.
    larger = ((large, chat(context=8192)), (huge, chat(context=8192)))
    (miss,) = nearest_misses(small, chat(context=512), found, (PLAIN,), larger=larger)
    assert (miss.flag, miss.then.context) == ("--target huge", 8192)


def test_a_licence_that_nobody_states_is_accepted_with_any() -> None:
    wish = replace(chat(), licenses=("apache-2.0",))
    nameless = replace(catalog.find("Qwen2.5-7B-Instruct-1M"), license=None)
    found = candidates(target(), wish, (nameless,), (PLAIN,), named=True)
    (miss,) = nearest_misses(target(), wish, found, (PLAIN,), named=True)
    assert (miss.flag, miss.then.passes) == ("--license any", True)


def test_each_proposed_change_is_one_after_which_everything_passes() -> None:
    device, workload = target(1.0 * GB), replace(merge({}, None), context=16384)
    found = fit(device, workload)
    proposed = nearest_misses(device, workload, found, (PLAIN,))
    assert proposed and all(miss.then.passes and not miss.candidate.passes for miss in proposed)
    assert len({miss.candidate.variant.repo_id for miss in proposed}) == len(proposed)


# Steps


def test_a_step_up_costs_memory_and_gains_scores_and_a_step_down_says_what_it_lacks() -> None:
    found = fit(target(recipes=("plain:b4",)), chat())
    down, up = steps(found)
    assert (down.direction, up.direction) == ("down", "up")
    assert down.memory_bytes < 0 < up.memory_bytes
    assert not down.candidate.passes and up.scores["IFEval"] > 0 and up.decode_tps < 0


def test_there_are_no_steps_where_nothing_is_chosen() -> None:
    assert steps(fit(target(0.01 * GB), chat(), "Qwen3-0.6B")) == ()


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"max_artifact_bytes": 200_000_000}, "--max-artifact-mb 299"),
        ({"max_file_bytes": 200_000_000}, "--max-file-size 299M"),
        ({"max_memory_bytes": 700_000_000}, "--max-memory-mb 768"),
        ({"max_ttft_ms": 800.0}, "--max-ttft-ms 1212"),
        ({"max_ttft_ms": 600.0}, "--prompt 256"),
        ({"min_scores": {"IFEval": 60.0}}, "--min-score 'IFEval=54.5'"),
    ],
)
def test_a_limit_of_the_users_that_fails_alone_is_proposed_as_what_there_is(
    limits: dict[str, Any], flag: str
) -> None:
    workload = chat(context=4096, **limits)
    assert misses(target(), workload, "Qwen3-0.6B", recipe="plain:b4") == [("Qwen3-0.6B", flag)]


def test_a_licence_that_stands_alone_in_the_way_is_proposed_by_its_name() -> None:
    assert misses(target(), chat(), "Qwen2.5-3B-Instruct") == [
        ("Qwen2.5-3B-Instruct", "--license qwen-research")
    ]


def test_a_change_of_what_the_device_does_comes_before_one_of_what_the_user_wants() -> None:
    found = misses(
        target(0.76 * GB, recipes=("plain:b4",)),
        chat(context=8192),
        "Qwen2.5-0.5B-Instruct",
        "Qwen3-0.6B",
        recipe="plain:b4",
    )
    assert [name for name, _ in found] == ["Qwen3-0.6B", "Qwen2.5-0.5B-Instruct"]


def test_what_no_number_can_change_is_not_called_near() -> None:
    assert misses(target(64 * GB), chat(), "Qwen3-30B-A3B", "Qwen3-0.6B-Base") == []
