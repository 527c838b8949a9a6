"""Whether this machine is the device that a target stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from packager.device.identity import Here, Identity, Place, of_figures, place
from targets import registry
from targets.machine.here import here

GB = 10**9
ARM = ("aarch64", "neon", "fp16", "dotprod")
PC = Here(
    ("x86_64", "sse4_2", "avx", "f16c", "fma", "avx2"),
    8,
    16 * GB,
    ("Intel(R) Core(TM) i7-1165G7 @ 2.80GHz",),
)
PI = Here(ARM, 4, 8_300_000_000, ("Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0"))


def gpu(name: str, size: float) -> Here:
    return replace(PC, gpus=((name, round(size)),))


@pytest.mark.parametrize(
    ("target", "machine", "words"),
    [
        ("laptop-cpu", PC, "is a class of devices"),
        ("laptop-8gb", replace(PC, memory_bytes=64 * GB), "is a class of devices"),
        ("cpu-gguf", replace(PC, isa=("x86_64",)), "is a class of devices"),
        ("raspberry-pi-5-8gb", PI, "calls itself Raspberry Pi 5 Model B Rev 1.0"),
        (
            "rtx-3060-12gb",
            gpu("NVIDIA GeForce RTX 3060", 12.88e9),
            "calls itself NVIDIA GeForce RTX 3060",
        ),
        ("rtx-3060-ti", gpu("NVIDIA GeForce RTX 3060 Ti", 8.59e9), "RTX 3060 Ti"),
        ("a100-80gb", gpu("NVIDIA A100-SXM4-80GB", 85.9e9), "A100-SXM4"),
        (
            "jetson-orin-nano",
            replace(PI, cores=6, names=("NVIDIA Jetson Orin Nano Developer Kit",)),
            "Jetson Orin Nano",
        ),
        ("android-8gb", replace(PI, phone=True), "is a class of devices"),
    ],
)
def test_a_machine_that_is_the_device_is_known_as_it(
    target: str, machine: Here, words: str
) -> None:
    found = place(Identity.of(registry.target(target)), machine)
    assert found.on_device, found.why
    assert words in found.why


@pytest.mark.parametrize(
    ("target", "machine", "words"),
    [
        ("laptop-cpu", PI, "the device is x86_64, this machine aarch64"),
        (
            "laptop-cpu",
            replace(PC, isa=("x86_64", "sse4_2")),
            "the device has avx2, this machine does not",
        ),
        ("raspberry-pi-5-8gb", PC, "the device is aarch64, this machine x86_64"),
        (
            "raspberry-pi-5-8gb",
            replace(PI, names=("Raspberry Pi 4 Model B",)),
            "called Raspberry Pi 5, this machine Raspberry Pi 4 Model B",
        ),
        (
            "raspberry-pi-5-8gb",
            replace(PI, memory_bytes=4_100_000_000),
            "8.59 GB of memory, this machine 4.10 GB",
        ),
        ("raspberry-pi-5-8gb", replace(PI, cores=2), "has 4 cores, and 2 may be used here"),
        ("android-8gb", PI, "the device is a phone"),
        ("rtx-3060-12gb", PC, "called RTX 3060"),
        ("rtx-3060-12gb", gpu("NVIDIA GeForce RTX 3060 Ti", 8.59e9), "called RTX 3060"),
        ("rtx-3060-12gb", gpu("NVIDIA GeForce RTX 3060 Laptop GPU", 6.4e9), "called RTX 3060"),
        (
            "rtx-3060-12gb",
            gpu("NVIDIA GeForce RTX 3060", 8.59e9),
            "GPU memory, this machine 8.59 GB",
        ),
        ("a100-40gb", gpu("NVIDIA A100-SXM4-80GB", 85.9e9), "GPU memory"),
        ("macbook-m4", Here(ARM, 10, 24 * GB, ("Apple M4 Pro",)), "called Apple M4"),
        ("laptop-cpu", Here((), 1, 1, ()), "this machine unknown"),
    ],
)
def test_a_machine_that_is_not_the_device_says_in_what(
    target: str, machine: Here, words: str
) -> None:
    found = place(Identity.of(registry.target(target)), machine)
    assert not found.on_device
    assert words in found.why


def test_figures_of_the_processor_are_not_those_of_a_device_that_runs_models_on_its_gpu() -> None:
    device = Identity.of(registry.target("rtx-3060-12gb"))
    there = Place(True, "it is")
    assert of_figures(there, device, "cpu") == Place(
        False, "the device runs models on its GPU, and the benchmark ran on the CPU"
    )
    assert of_figures(there, device, "gpu") == there
    assert of_figures(Place(False, "elsewhere"), device, "gpu") == Place(False, "elsewhere")


def test_the_identity_of_every_device_survives_the_manifest() -> None:
    for target in registry.targets():
        device = Identity.of(target)
        assert Identity.from_dict(json.loads(json.dumps(device.as_dict()))) == device


def test_a_device_that_is_no_class_of_machines_says_what_it_is_called() -> None:
    for target in registry.targets():
        a_class = (
            target.name.startswith(("laptop-", "mini-pc-", "android-", "windows-"))
            or target.name == "cpu-gguf"
        )
        assert bool(target.device.known_by) != a_class, target.name


def test_a_board_says_what_it_is_in_its_device_tree(tmp_path: Path) -> None:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "proc" / "cpuinfo").write_text("Features : asimd\n")
    assert "Raspberry Pi 5 Model B Rev 1.0" in here(tmp_path).names
