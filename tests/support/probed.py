"""A machine, and what was measured of it."""

from __future__ import annotations

from dataclasses import replace

from targets.machine.limits import Memory
from targets.machine.measure import Kernel
from targets.machine.probe import (
    Machine,
    Measurement,
)

RUNTIMES = ("llama.cpp", "onnxruntime", "openvino")
KERNEL = Kernel("llama.cpp", "q4_k", 20e9, 150e9, 2, 4)
QUIET = Measurement(
    "llama.cpp",
    20_000_000_000,
    150_000_000_000,
    2,
    4,
    False,
    0.01,
    (KERNEL,),
    {},
    6.5,
    "2026-11-21T10:00:00+00:00",
)
NOISY = replace(QUIET, bandwidth=5_000_000_000, noisy=True, other_load=0.6)
MACHINE = Machine(
    "A processor",
    ("x86_64", "avx2"),
    4,
    8,
    Memory(16 * 10**9, 12 * 10**9, "system"),
    10**11,
    (),
    "Linux 6",
)
