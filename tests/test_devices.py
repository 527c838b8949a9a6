"""The built-in devices: complete, sourced, and near what has been published about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from packager.device.target import Target
from packager.predict.forecast import Forecast, predict
from packager.shape import Experts, Shape
from targets.devices.device_schema import SOURCED
from targets.registry import DEVICES, target, target_names, targets

ALL = targets()


def qwen(
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    intermediate: int,
    tied: bool = True,
) -> Shape:
    """A dense shape; the fields that no byte and no operation depends on are filled in alike."""
    return Shape(
        "qwen3",
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        151936,
        tied,
        False,
        True,
        40960,
    )


QWEN3_06, QWEN3_17 = qwen(1024, 28, 16, 8, 128, 3072), qwen(2048, 28, 16, 8, 128, 6144)
QWEN3_4, QWEN3_8 = qwen(2560, 36, 32, 8, 128, 9728), qwen(4096, 36, 32, 8, 128, 12288, tied=False)
QWEN2_05, QWEN2_15 = qwen(896, 24, 14, 2, 64, 4864), qwen(1536, 28, 12, 2, 128, 8960)
QWEN3_30 = replace(qwen(2048, 48, 32, 4, 128, 6144, tied=False), experts=Experts(128, 8, 768))


@dataclass(frozen=True, slots=True)
class Row:
    """A published measurement: `weights` are the bytes read per token, `decode` and `prefill`
    tokens per second."""

    device: str
    shape: Shape
    weights: int
    decode: float
    prefill: float | None
    prompt: int
    where: str

    def forecast(self) -> Forecast:
        device = target(self.device).device
        # llama-bench generates 128 tokens from an empty cache: 64 of them lie in it on average.
        cache = 64 * 2 * self.shape.layers * self.shape.kv_heads * self.shape.head_dim * 2
        return predict(
            self.shape,
            self.weights + cache,
            self.prompt,
            device.bandwidth,
            device.compute,
            device.confidence,
        )


LLMFIT = "AlexsJones/llmfit, benchmark_cache.json"
SPACEMIT = "llama.cpp, docs/build-riscv64-spacemit.md"
ROWS = [
    Row("ryzen-7840hs", QWEN3_06, 397_000_000, 121.1, 854.4, 512, f"Q4_K_M, {LLMFIT}"),
    Row("ryzen-7840hs", QWEN3_06, 639_000_000, 81.5, 756.5, 512, f"Q8_0, {LLMFIT}"),
    Row("ryzen-7840hs", QWEN3_4, 2_497_000_000, 22.3, 148.9, 512, f"Q4_K_M, {LLMFIT}"),
    Row("ryzen-7840hs", QWEN3_8, 4_680_000_000, 12.3, 81.3, 512, f"Q4_K_M, {LLMFIT}"),
    Row("ryzen-7840hs", QWEN2_05, 398_000_000, 128.3, 875.8, 512, f"Q4_K_M, {LLMFIT}"),
    Row(
        "raspberry-pi-5-16gb",
        QWEN3_30,
        1_020_000_000,
        8.03,
        10.9,
        512,
        "2.70 bits per weight, ByteShape",
    ),
    Row(
        "raspberry-pi-5-8gb",
        QWEN2_05,
        352_000_000,
        33.8,
        289.9,
        512,
        "Q4_0, llama.cpp discussion 30069",
    ),
    Row(
        "spacemit-k3",
        QWEN3_06,
        335_000_000,
        54.5,
        381.2,
        512,
        "MNN, riscv_k3_ime2_asymmetric_w4b64.md",
    ),
    Row(
        "spacemit-k3",
        QWEN3_17,
        968_000_000,
        24.9,
        169.3,
        512,
        "MNN, riscv_k3_ime2_asymmetric_w4b64.md",
    ),
    Row("spacemit-k3", QWEN3_06, 376_000_000, 55.8, 565.8, 128, SPACEMIT),
    Row("spacemit-k3", QWEN3_4, 2_373_000_000, 11.3, 79.7, 128, SPACEMIT),
    Row("spacemit-k1", QWEN3_06, 376_000_000, 11.7, 49.2, 128, SPACEMIT),
    Row("iphone-8gb", QWEN2_05, 398_000_000, 51.0, None, 512, "iPhone 15 Pro, published table"),
    Row("iphone-8gb", QWEN2_15, 986_000_000, 26.0, None, 512, "iPhone 15 Pro, published table"),
    Row("macbook-m4", QWEN3_06, 335_000_000, 142.0, 1036.0, 512, "MNN, M4 processor, 4 threads"),
    Row(
        "jetson-agx-thor", QWEN3_17, 968_000_000, 170.4, None, 370, "NVFP4, TensorRT Edge-LLM 0.7.0"
    ),
    Row("cloud-epyc-2c", QWEN3_4, 2_510_000_000, 8.4, 30.0, 512, "Q4_K_M, llama.cpp b11435"),
]
IDS = [f"{row.device}-{row.decode:g}" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_published_decode_rate_falls_inside_the_range_of_the_forecast(row: Row) -> None:
    forecast = row.forecast()
    assert forecast.low <= row.decode <= forecast.high, (forecast, row.where)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.prefill], ids=lambda row: f"{row.device}-{row.prefill:g}"
)
def test_a_published_prefill_rate_lies_within_a_factor_of_two(row: Row) -> None:
    assert row.prefill is not None
    assert 0.5 <= row.forecast().prefill_tps / row.prefill <= 2.0, (row.forecast(), row.where)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.device == "ryzen-7840hs"], ids=lambda row: f"{row.decode:g}"
)
def test_one_bandwidth_explains_the_ryzen_within_fifteen_percent(row: Row) -> None:
    assert abs(row.forecast().decode_tps / row.decode - 1) <= 0.15


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.device == "ryzen-7840hs" and row.shape is not QWEN2_05],
    ids=lambda row: f"{row.prefill:g}",
)
def test_one_compute_explains_the_prefill_of_qwen3_on_the_ryzen_within_a_quarter(row: Row) -> None:
    assert row.prefill is not None
    assert abs(row.prefill / row.forecast().prefill_tps - 1) <= 0.25


def test_the_ultra_155h_lies_within_its_published_bandwidth() -> None:
    assert 38e9 <= target("core-ultra-7-155h").device.bandwidth <= 48e9


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_device_is_named_like_its_file_and_leaves_room_for_a_model(one: Target) -> None:
    assert one.path == str(DEVICES / f"{one.name}.toml")
    assert (
        10**9
        < one.device.available_bytes
        < one.device.memory_bytes + (one.device.gpu_memory_bytes or 0)
    )


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_number_of_a_device_has_a_source_that_can_be_looked_up(one: Target) -> None:
    numbers = {
        key
        for key in SOURCED
        if getattr(one.device, key) is not None
        and (key != "gpu_reserve_bytes" or one.device.gpu_reserve_bytes)
    }
    assert numbers == set(one.device.sources)
    assert not any(
        re.search(r"https?://|huggingface\.co|pypi", text) for text in one.device.sources.values()
    )


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_preferred_recipe_belongs_to_one_of_the_runtimes(one: Target) -> None:
    prefixes = {"llama.cpp": "gguf", "openvino": "openvino", "onnxruntime": "onnx"}
    assert {recipe.partition(":")[0] for recipe in one.recipes} <= {
        prefixes[runtime] for runtime in one.runtimes
    }


@pytest.mark.parametrize(
    "one", [one for one in ALL if one.kind == "phone"], ids=lambda one: one.name
)
def test_a_phone_lets_one_process_take_half_of_its_memory(one: Target) -> None:
    assert one.device.available_bytes == one.device.memory_bytes // 2


def test_the_devices_people_ask_for_are_there() -> None:
    wanted = """laptop-cpu cpu-gguf laptop-8gb laptop-32gb mini-pc-8gb mini-pc-16gb mini-pc-32gb intel-n100 ryzen-7840hs
        core-ultra-7-155h core-ultra-7-155h-igpu core-ultra-7-155h-npu xeon-8480 raspberry-pi-5-4gb raspberry-pi-5-8gb
        raspberry-pi-5-16gb jetson-orin-nano jetson-orin-nx-16gb jetson-agx-orin-64gb jetson-agx-thor android-6gb android-8gb
        android-12gb android-16gb iphone-6gb iphone-8gb spacemit-k1 spacemit-k3 gtx-1660 rtx-3060-12gb rtx-3060-ti rtx-3070
        rtx-3080 rtx-3090 rtx-4090 arc-a770 a100-40gb a100-80gb edge-gpu"""
    assert set(wanted.split()) <= set(target_names())


def test_the_default_laptop_is_served_by_openvino_first() -> None:
    laptop = target("laptop-cpu")
    assert laptop.runtimes == ("openvino", "llama.cpp", "onnxruntime")
    assert laptop.recipes[0] == "openvino:int4_sym_g128"
    assert "avx2" in laptop.device.isa.split()
