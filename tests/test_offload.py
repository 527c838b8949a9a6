"""Offload: a GPU with memory of its own takes a model whole or in part, and everything is counted
once, on the side where it lies."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.cli import main
from packager.device.target import Device
from packager.errors import ExitCode
from packager.need.workload import merge
from packager.predict.forecast import AS_RATED, predict_on
from packager.predict.memory import kv_cache_bytes
from packager.predict.offload import Offloads, Split, best_split, host_seconds, splits
from packager.select import Candidate, candidates
from packager.select.cache_type import with_cache_type
from packager.shape import Shape
from targets import registry
from targets.gguf import layers, sizes
from targets.gguf.arch import MODEL_TYPES
from targets.gguf.presets import PRESETS
from targets.llama_cpp import LlamaCpp

GB = 10**9
LLAMA = LlamaCpp()
SHAPES = {
    sizes.key(shape): shape
    for shape in map(sizes.decoder_of, catalog.load())
    if shape is not None and shape.model_type in MODEL_TYPES
}
GPU = replace(
    registry.target("rtx-3060-12gb").device, gpu_memory_bytes=12 * GB, gpu_reserve_bytes=0
)


def shape_of(name: str) -> Shape:
    shape = catalog.find(name).shape
    assert shape is not None
    return shape


def split(name: str, gpu_layers: int, weights: str = "Q4_K_M", context: int = 4096) -> Split:
    return LLAMA.split(shape_of(name), LLAMA.recipe(weights), context, 512, gpu_layers)


def best(name: str, device: Device = GPU, room: int | None = None) -> Split:
    return best_split(
        LLAMA,
        shape_of(name),
        LLAMA.recipe("Q4_K_M"),
        4096,
        512,
        device,
        device.available_bytes if room is None else room,
    )


# The table of layers


@pytest.mark.parametrize("preset", PRESETS)
def test_the_table_of_layers_has_every_shape_and_the_bytes_that_the_table_of_sizes_has(
    preset: str,
) -> None:
    for shape in SHAPES.values():
        total = sizes.of(shape, PRESETS[preset])
        found = layers.of(shape, PRESETS[preset], total)
        assert layers.UNKNOWN not in found.embedding, (
            "python -m targets.gguf.layers writes the table anew"
        )
        assert (
            sum(found.layer_bytes()) + sum(found.embedding.values()) + sum(found.output.values())
            == total.data
        )
        assert sum(found.read_per_token(shape).values()) == pytest.approx(
            total.read_per_token(shape), rel=1e-4
        )


def test_the_first_and_last_layers_of_q4_k_m_hold_more_than_those_between() -> None:
    sized = layers.of(
        shape_of("Qwen3-4B"), PRESETS["Q4_K_M"], sizes.of(shape_of("Qwen3-4B"), PRESETS["Q4_K_M"])
    ).layer_bytes()
    assert sized[0] == sized[-1] == max(sized) > min(sized)


def test_types_that_the_user_added_leave_an_exact_sum_in_layers_all_alike() -> None:
    total = sizes.of(shape_of("Qwen3-4B"), PRESETS["Q4_K_M"])._replace(rest=36 * 10**6)
    found = layers.of(shape_of("Qwen3-4B"), PRESETS["Q4_K_M"], total)
    assert found.layer_bytes() == [10**6] * 36


# One split


@pytest.mark.parametrize("name", ["Qwen3-0.6B", "Qwen3-8B", "Qwen3-30B-A3B"])
@pytest.mark.parametrize("gpu_layers", [0, 1, 7, 10**6])
def test_weights_and_cache_lie_on_one_side_each_and_a_tied_embedding_on_both(
    name: str, gpu_layers: int
) -> None:
    shape, one = shape_of(name), split(name, gpu_layers)
    total = sizes.of(shape, PRESETS["Q4_K_M"])
    twice = total.embedding if shape.tied and gpu_layers else 0
    assert one.device.weights + one.host.weights == total.data + twice
    assert one.device.kv_cache + one.host.kv_cache == kv_cache_bytes(shape, 4096)
    assert one.device_read + one.host_read == pytest.approx(
        LLAMA.decode_bytes(shape, LLAMA.recipe("Q4_K_M"), 512), rel=1e-4
    )


def test_without_layers_on_the_gpu_nothing_is_there() -> None:
    none = split("Qwen3-8B", 0)
    assert none.device.peak == none.device_read == 0
    total = sizes.of(shape_of("Qwen3-8B"), PRESETS["Q4_K_M"])
    assert none.host.weights == total.data
    assert none.host_weights == pytest.approx(total.rest, rel=1e-4), (
        "a prompt's batch brings the layers over, not embedding and output"
    )


def test_the_output_matrix_is_the_first_on_the_gpu_and_the_layers_follow_from_the_last() -> None:
    shape, total = shape_of("Qwen3-8B"), sizes.of(shape_of("Qwen3-8B"), PRESETS["Q4_K_M"])
    sized = layers.of(shape, PRESETS["Q4_K_M"], total).layer_bytes()
    assert split("Qwen3-8B", 1).device.weights == pytest.approx(total.output, rel=1e-4)
    for more in (1, 2, 36):
        assert split("Qwen3-8B", 1 + more).device.weights - split(
            "Qwen3-8B", 1
        ).device.weights == sum(sized[-more:])


def test_a_whole_model_leaves_the_embedding_and_the_process_behind() -> None:
    whole = split("Qwen3-8B", 99)
    assert (whole.gpu_layers, whole.all_layers, whole.whole) == (37, 37, True)
    assert whole.host.weights == sizes.of(shape_of("Qwen3-8B"), PRESETS["Q4_K_M"]).embedding
    assert whole.host.kv_cache == whole.host_read == whole.host_weights == 0


def test_of_a_hybrid_each_layer_takes_its_own_kind_of_cache_along() -> None:
    shape = shape_of("Qwen3-Next-80B-A3B-Instruct")
    steps = [
        split("Qwen3-Next-80B-A3B-Instruct", 1 + count).device.kv_cache
        for count in range(shape.layers + 1)
    ]
    grown = [late - early for early, late in pairwise(steps)]
    assert len(set(grown)) == 2
    assert grown[0] == kv_cache_bytes(replace(shape, hybrid=None, layers=1), 4096), (
        "the last layer of an interval has full attention"
    )
    assert steps[-1] == kv_cache_bytes(shape, 4096)


@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(1, 100),
    st.integers(16, 40000),
    st.sampled_from(["Q4_K_M", "Q8_0", "Q2_K"]),
)
def test_one_layer_more_never_takes_less_of_the_gpu_nor_more_of_the_system(
    key: str, gpu_layers: int, context: int, weights: str
) -> None:
    shape, recipe = SHAPES[key], LLAMA.recipe(weights)
    one, more = (
        LLAMA.split(shape, recipe, context, context, count)
        for count in (gpu_layers, gpu_layers + 1)
    )
    # A prompt's batch brings the largest layer that stays behind; once that one moves, its place on
    # the GPU is free again.
    assert one.device.total - one.device.compute <= more.device.total - more.device.compute
    assert one.host.peak >= more.host.peak


# The best split


def test_a_model_that_fits_lies_on_the_gpu_as_a_whole() -> None:
    assert best("Qwen3-8B").whole


@given(st.integers(1, 40))
def test_as_many_layers_as_fit_go_onto_the_gpu_and_one_more_would_not(gigabytes: int) -> None:
    one = best("Qwen3-32B", replace(GPU, memory_bytes=64 * GB), gigabytes * GB)
    if one.whole and one.device.peak > gigabytes * GB:
        assert split("Qwen3-32B", 1).device.peak > gigabytes * GB
        return
    assert one.device.peak <= gigabytes * GB
    assert one.whole or split("Qwen3-32B", one.gpu_layers + 1).device.peak > gigabytes * GB


def test_without_a_rate_of_the_systems_memory_a_model_goes_whole_or_not_at_all() -> None:
    assert best("Qwen3-32B", replace(GPU, host_bandwidth=None)).whole


def test_layers_stay_behind_only_where_the_system_has_room_for_them() -> None:
    assert not best("Qwen3-32B").whole
    assert best("Qwen3-32B", replace(GPU, memory_bytes=8 * GB, reserve_bytes=0)).whole


def test_only_a_gpu_with_memory_of_its_own_splits() -> None:
    assert splits(GPU)
    assert not splits(registry.target("laptop-cpu").device)
    assert not splits(registry.target("jetson-orin-nano").device), (
        "its memory is the system's: a model lies there as a whole"
    )
    assert isinstance(LLAMA, Offloads)
    assert [runtime.name for runtime in registry.runtimes() if isinstance(runtime, Offloads)] == [
        "llama.cpp"
    ]


# Its speed


def test_a_token_reads_both_memories_one_after_the_other() -> None:
    one = best("Qwen3-32B")
    device = GPU
    seen = predict_on(shape_of("Qwen3-32B"), one.device_read, 512, device, AS_RATED)
    assert device.host_bandwidth is not None and device.link_bandwidth is not None
    seconds = one.device_read / device.bandwidth + one.host_read / device.host_bandwidth
    extra = host_seconds(one, device)
    assert 1 / seen.decode_tps + extra.token == pytest.approx(seconds, rel=1e-3)
    assert extra.batch == one.host_weights / device.link_bandwidth


def test_a_whole_model_pays_nothing_for_the_other_memory() -> None:
    extra = host_seconds(best("Qwen3-8B"), GPU)
    assert (extra.token, extra.batch) == (0, 0)


# In the selection


def fitted(target: str, model: str, **changes: object) -> Candidate:
    one = registry.target(target)
    workload = replace(merge({}, None), min_decode_tps=None, max_ttft_ms=None, **changes)  # type: ignore[arg-type]
    return candidates(
        one, workload, (catalog.find(model),), registry.runtimes(), recipe="gguf:Q4_K_M"
    )[0]


def test_a_forecast_for_a_split_model_is_an_estimate_whatever_the_device_is() -> None:
    whole, partial = fitted("rtx-3060-12gb", "Qwen3-8B"), fitted("rtx-3060-12gb", "Qwen3-32B")
    assert (whole.forecast.confidence, partial.forecast.confidence) == ("same-class", "estimated")
    assert partial.verdict == "chosen" and partial.split is not None and not partial.split.whole
    assert partial.forecast.decode_tps < whole.forecast.decode_tps / 3


def test_one_layer_in_the_systems_memory_is_felt() -> None:
    one = fitted("rtx-3060-12gb", "Qwen3-32B")
    assert one.split is not None
    # 64 layers start 18 kernels of 3 us each.
    pace = one.split.device_read / 1e9 / 325 + one.split.host_read / 1e9 / 31 + 64 * 18 * 3.0e-6
    assert 1 / one.forecast.decode_tps == pytest.approx(pace, rel=0.01)


def test_what_neither_memory_holds_is_rejected_with_both_named() -> None:
    (reason,) = fitted("gtx-1660", "Qwen3-32B").reasons
    assert reason.rule == "memory"
    assert "on the GPU and" in reason.has and reason.has.endswith("of system memory")


def test_a_limit_on_memory_holds_on_the_gpu_too() -> None:
    one = fitted("rtx-3060-12gb", "Qwen3-8B", max_memory_bytes=3 * GB)
    assert one.split is not None and not one.split.whole
    assert one.footprint.peak <= 3 * GB


def test_another_cache_type_leaves_room_for_more_layers() -> None:
    target, workload = (
        registry.target("rtx-3060-12gb"),
        replace(merge({}, None), context=32768, prompt=512, min_decode_tps=None),
    )
    variant = (catalog.find("Qwen3-14B"),)
    counts = []
    for runtimes in (registry.runtimes(), with_cache_type(registry.runtimes(), "q4_0")):
        one = candidates(target, workload, variant, runtimes, recipe="gguf:Q4_K_M")[0]
        assert one.split is not None
        counts.append(one.split.gpu_layers)
    assert counts[0] < counts[1]


def test_fit_prints_the_layers_and_both_memories(capsys: pytest.CaptureFixture[str]) -> None:
    ask = [
        "fit",
        "--target",
        "rtx-3060-12gb",
        "--model",
        "Qwen3-30B-A3B",
        "--recipe",
        "gguf:Q4_K_M",
    ]
    assert main(ask) == ExitCode.DONE
    said = " ".join(capsys.readouterr().out.split())
    assert "of 49 layers) and" in said and "of system memory" in said and "estimated" in said
    assert main([*ask, "--json"]) == ExitCode.DONE
    (one,) = json.loads(capsys.readouterr().out)["candidates"]
    assert one["gpu_layers"] == one["offload"]["gpu_layers"] < one["offload"]["all_layers"] == 49
    assert one["footprint"] == one["offload"]["device"]
    assert (
        main(["fit", "--target", "laptop-cpu", "--model", "Qwen3-0.6B", "--json"]) == ExitCode.DONE
    )
    assert json.loads(capsys.readouterr().out)["candidates"][0]["gpu_layers"] is None


# In the package


def test_the_exact_commands_name_the_layers() -> None:
    text = LLAMA.how_to_run(LLAMA.recipe("Q4_K_M"), {"context": 4096, "gpu_layers": 28})
    assert text.count("--n-gpu-layers 28") == 2
    assert "n_gpu_layers=28" in text and "PARAMETER num_gpu 28" in text
    none = LLAMA.how_to_run(LLAMA.recipe("Q4_K_M"), {"context": 4096, "gpu_layers": 0})
    assert "gpu" not in none
