"""The selection among recipes: execution providers, cache types, and recipes that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.need.workload import merge
from packager.recipe import Recipe
from packager.select import Candidate, candidates
from packager.select.cache_type import with_cache_type
from packager.select.preference import ordered
from packager.shape import Shape
from targets import registry
from tests.support.plain_runtime import GB, PLAIN, PlainRuntime, chat, fit, target


class ForProviders(PlainRuntime):
    """The same arithmetic, with recipes that name the execution provider they are made for."""

    def recipes(self) -> tuple[Recipe, ...]:
        named = zip(super().recipes(), ("cpu", "cuda", "dml", "webgpu"), strict=True)
        return tuple(
            replace(recipe, weights=provider, provider=provider) for recipe, provider in named
        )


@pytest.mark.parametrize(
    ("unit", "gpu", "serves"),
    [
        ("cpu", "", {"cpu"}),
        ("cpu", "NVIDIA GeForce RTX 3060", {"cpu"}),
        ("gpu", "NVIDIA GeForce RTX 3060", {"cuda"}),
        ("gpu", "Ampere, 1024 CUDA cores", {"cuda"}),
        ("gpu", "Radeon 780M", {"dml"}),
    ],
)
def test_of_several_execution_providers_the_best_one_of_the_device_is_taken(
    unit: Any, gpu: str, serves: set[str]
) -> None:
    device = target(64 * GB)
    device = replace(device, device=replace(device.device, runs_on=unit, gpu=gpu))
    found = fit(device, chat(), "Qwen3-0.6B", runtimes=(ForProviders(),))
    assert {candidate.recipe.weights for candidate in found} == serves


def test_a_target_that_lists_a_recipe_of_a_provider_gets_the_others_of_that_provider() -> None:
    device = target(64 * GB, recipes=("plain:webgpu",))
    device = replace(
        device, device=replace(device.device, runs_on="gpu", gpu="NVIDIA GeForce RTX 3060")
    )
    found = fit(device, chat(), "Qwen3-0.6B", runtimes=(ForProviders(),))
    assert {candidate.recipe.weights for candidate in found} == {"webgpu"}


def test_a_recipe_for_another_unit_that_somebody_names_is_rejected_with_the_reason() -> None:
    (found,) = fit(target(), chat(), "Qwen3-0.6B", runtimes=(ForProviders(),), recipe="plain:cuda")
    assert [(reason.rule, reason.needs) for reason in found.reasons] == [
        ("device", "an NVIDIA GPU")
    ]


def test_a_recipe_with_another_cache_type_takes_less_memory() -> None:
    plain, small = (
        fit(target(), chat(), "Qwen3-0.6B", recipe=f"plain:b4{kv}")[0] for kv in ("", "/kv_q8_0")
    )
    assert small.footprint.kv_cache / plain.footprint.kv_cache == 8.5 / 16


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        ("nonsense", "is not a recipe"),
        ("ggfu:b4", "no runtime"),
        ("plain:b5", "no recipe"),
        ("other:b4", "not served by"),
    ],
)
def test_a_recipe_that_cannot_be_is_a_mistake_in_usage(recipe: str, part: str) -> None:
    with pytest.raises(PackError, match=part) as caught:
        fit(
            target(),
            chat(),
            "Qwen3-0.6B",
            recipe=recipe,
            runtimes=(PLAIN, PlainRuntime("other", "other")),
        )
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_target_whose_runtimes_are_not_there_is_a_sentence() -> None:
    with pytest.raises(PackError, match="No runtime of bench-device is installed"):
        fit(target(runtimes=("absent",)), chat(), "Qwen3-0.6B")


# Devices that are odd


@given(memory=st.integers(0, 10**30), context=st.integers(16, 2**24))
def test_any_amount_of_memory_and_any_context_get_a_verdict(memory: int, context: int) -> None:
    found = fit(
        target(memory),
        chat(context=context, prompt=min(512, context // 2)),
        "Qwen3-0.6B",
        "Qwen3-32B",
    )
    assert {candidate.verdict for candidate in found} <= {"chosen", "fits", "rejected"}
    assert all(candidate.reasons for candidate in found if candidate.verdict == "rejected")


class Holding(PlainRuntime):
    """The same, with recipes that lose too much for who chats."""

    def __init__(self, *held: str) -> None:
        super().__init__()
        self._held = held

    def held_back(self, recipe: Recipe, task: str) -> str | None:
        held = task == "generate" and recipe.weights in self._held
        return "It forgets. Source: a table." if held else None


@pytest.mark.parametrize("prefer", ["smallest", "quality", "speed", "balanced", "cost"])
def test_what_a_runtime_holds_back_for_a_task_stands_behind_all_others(prefer: Any) -> None:
    """Also where the target's own list or the preference would put it first."""
    device, workload = target(recipes=("plain:b4", "plain:b8")), chat(prefer=prefer)

    def first(runtime: PlainRuntime, **more: Any) -> Candidate:
        return fit(device, workload, "Qwen3-0.6B", runtimes=(runtime,), **more)[0]

    before, held = first(PLAIN), Holding("b4")
    if prefer != "quality":
        assert before.recipe.weights == "b4"
    found = first(held)
    assert found.passes and found.recipe.weights in ("b8", "b16") and not found.notes
    # Named, or where all others are coarse, it is taken, and the reason is said.
    named = first(held, recipe="plain:b4")
    assert named.passes and named.notes == ("It forgets. Source: a table.",)
    every = fit(device, workload, "Qwen3-0.6B", runtimes=(held,), every=True)
    assert [one.recipe.weights for one in every if one.held] == ["b4"]
    places = [one.last for one in every if one.passes]
    assert places == sorted(places)
    narrow = target(int(0.9 * GB), recipes=("plain:b4", "plain:b8"))
    only = fit(narrow, workload, "Qwen3-0.6B", runtimes=(Holding("b4", "b8"),))[0]
    assert only.passes and only.held


@pytest.mark.parametrize("case", ["embed", "rerank"])
def test_vectors_and_scores_come_from_a_token_embedding_in_eight_bits_where_there_is_room(
    case: str,
) -> None:
    """As docs/retrieval.md has measured it; a chat takes what the target lists."""
    device, variants = registry.target("android-onnx"), catalog.load()
    onnx = (registry.runtime("onnxruntime"),)
    for prefer in ("smallest", "quality", "speed", "balanced", "cost"):
        workload = merge({"use_case": case, "prefer": prefer}, device.workload)
        best = candidates(device, workload, variants, onnx)[0]
        settings: Any = best.recipe.settings["quantization"]
        assert best.verdict == "chosen" and settings["head_bits"] == 8, prefer
    workload = merge({"use_case": "chat"}, device.workload)
    assert candidates(device, workload, variants, onnx)[0].recipe.id == device.recipes[0]
    model = {"embed": "Qwen3-Embedding-0.6B", "rerank": "Qwen3-Reranker-0.6B"}[case]
    (named,) = candidates(
        device,
        merge({"use_case": case}, device.workload),
        [catalog.find(model)],
        onnx,
        recipe="onnx:int4_sym_b32",
    )
    assert "token embedding in 4 bits" in named.notes[-1] and "docs/retrieval.md" in named.notes[-1]


@pytest.mark.parametrize("case", ["vision", "audio", "embed"])
def test_another_cache_type_takes_away_nothing_that_a_runtime_can_besides(case: str) -> None:
    device = registry.target("rtx-4090")
    runtimes = with_cache_type(registry.runtimes(), "q8_0")
    workload = merge({"use_case": case}, device.workload)
    best = candidates(device, workload, catalog.load(), runtimes)[0]
    assert best.passes and best.recipe.kv == "q8_0"


@pytest.mark.parametrize("case", ["embed", "chat"])
def test_a_coarse_recipe_of_the_first_runtime_does_not_hide_a_better_one_of_the_second(
    case: str,
) -> None:
    """What is listed with every recipe is what is chosen without."""
    device = registry.target("raspberry-pi-5-8gb")
    workload = merge({"use_case": case, "max_artifact_bytes": 350_000_000}, device.workload)
    chosen = [
        candidates(device, workload, catalog.load(), registry.runtimes(), every=every)[0]
        for every in (False, True)
    ]
    assert [one.last for one in chosen] == [min(one.last for one in chosen)] * 2
    assert chosen[0].label == chosen[1].label


def test_the_best_balance_is_no_coarse_recipe_where_a_fine_one_has_no_score() -> None:
    coarse, fine = fit(target(), chat(), "Qwen3-0.6B", "Qwen3-1.7B", recipe="plain:b8")[:2]
    fine, coarse = replace(fine, quality=None), replace(coarse, coarse=True)
    assert coarse.quality is not None
    assert ordered([coarse, fine], "balanced")[0] is fine


class Slow(PlainRuntime):
    """The same, but every token reads the weights once for each token of the context."""

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        return 10**6 * super().decode_bytes(shape, recipe, context)


@pytest.mark.parametrize("prefer", ["smallest", "quality", "speed", "balanced", "cost"])
def test_an_engine_that_takes_hours_for_a_token_gets_a_verdict(prefer: Any) -> None:
    """As one without a cache does on a weak device: no rate is rounded to none."""
    workload = chat(prefer=prefer, min_decode_tps=6.0)
    models = ("Qwen3-0.6B", "Qwen3-4B-Thinking-2507")
    found = fit(target(64 * GB), workload, *models, runtimes=(Slow(),), every=True)
    assert {one.verdict for one in found} == {"rejected"}
    for one in found:
        speed = one.forecast
        assert 0 < speed.low < speed.decode_tps < speed.high < 0.001
        said = "; ".join(map(str, one.reasons))
        assert one.machine_seconds > 1000 and "decode: needs 6 tok/s, has 0.0" in said
