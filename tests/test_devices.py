"""The built-in devices: complete and sourced; how near they are to what has been published:
tests/test_published.py."""

from __future__ import annotations

import re

import pytest

from packager.device.target import Target
from targets.devices.device_schema import SOURCED
from targets.registry import DEVICES, target, target_names, targets

ALL = targets()


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
        and (key, getattr(one.device, key)) not in (("gpu_reserve_bytes", 0), ("gpus", 1))
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


def test_every_device_on_which_llama_cpp_runs_says_what_a_small_operation_takes() -> None:
    # The file of that phone is about another engine.
    without = {one.name for one in ALL if one.device.operation_seconds is None}
    assert without == {"android-onnx"}


def test_macs_and_phones_of_apple_are_named_for_what_apps_use_and_for_the_processor() -> None:
    for name in ("macbook-m4", "iphone-6gb", "iphone-8gb"):
        metal, processor = target(name), target(f"{name}-cpu")
        assert metal.device.computes_with.startswith("metal aarch64") and "Metal" in metal.summary
        assert (
            processor.device.computes_with.startswith("aarch64")
            and "processor" in processor.summary
        )


def test_the_default_laptop_is_served_by_openvino_first() -> None:
    laptop = target("laptop-cpu")
    assert laptop.runtimes == ("openvino", "llama.cpp", "onnxruntime")
    assert laptop.recipes[0] == "openvino:int4_sym_g128"
    assert "avx2" in laptop.device.isa.split()
