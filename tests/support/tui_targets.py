"""Targets for pictures of the screens: a laptop, a phone, a board, this machine, and a graphics card."""

from __future__ import annotations

from dataclasses import replace

from packager.device.target import Device, Target
from packager.need.workload import Workload

_GB = 10**9
CHAT = Workload(min_decode_tps=6.0, max_ttft_ms=10000.0)


def _device(
    memory: int, reserve: int, cap: int | None, bandwidth: float, compute: float, cpu: str
) -> Device:
    sources = {
        "memory_bytes": "data sheet of the machine",
        "reserve_bytes": "what the system's maker states as its least",
        "bandwidth": "llama-bench, Qwen3-4B Q4_K_M: 14.6 tok/s x 2.74 GB",
        "compute": "llama-bench, prompt of 512 tokens: 55.5 tok/s",
    }
    return Device(
        memory,
        reserve,
        cap,
        "x86_64 avx avx2 fma",
        8,
        bandwidth,
        compute,
        512 * _GB,
        "same-class",
        sources=sources,
        cpu=cpu,
    )


def _target(name: str, kind: str, summary: str, device: Device) -> Target:
    return Target(
        name,
        summary,
        kind,
        device,
        ("openvino", "llama.cpp"),
        ("openvino:int4_sym_g128",),
        CHAT,
        f"/data/devices/{name}.toml",
    )


LAPTOP = _target(
    "laptop-cpu",
    "laptop",
    "A mainstream laptop with 16 GB",
    _device(16 * _GB, 4 * _GB, None, 40e9, 370e9, "8 fast cores"),
)
PHONE = _target(
    "android-8gb",
    "phone",
    "An Android phone with 8 GB",
    _device(8 * _GB, 2 * _GB, 4 * _GB, 25e9, 90e9, "8 cores"),
)
BOARD = _target(
    "raspberry-pi-5",
    "single-board",
    "A single-board computer with 8 GB",
    _device(8 * _GB, _GB, None, 12e9, 60e9, "4 x Cortex-A76"),
)
HERE = replace(
    _target(
        "this-machine",
        "laptop",
        "This machine: a processor, 8 cores",
        _device(16 * _GB, 3 * _GB, None, 38e9, 300e9, "a processor"),
    ),
    path="/home/me/.cache/qwen-pack/this-machine.toml",
)


GPU_DEVICE = replace(LAPTOP.device, runs_on="gpu", gpu_memory_bytes=8 * _GB, gpu="a graphics card")
