"""A device file that says all that one may say, and ways to change and read it."""

from __future__ import annotations

import pytest

from packager.device.target import Target
from packager.errors import ExitCode
from targets.devices.device_file import BadDeviceFile, parse_target

RUNTIMES = ("llama.cpp", "onnxruntime", "openvino")


GOOD = """name = "mine"
summary = "A test bench"
kind = "laptop"

[device]
memory_bytes = 16_000_000_000
reserve_bytes = 4_000_000_000
isa = ["x86_64", "avx2"]
cores = 8
bandwidth = 40e9
compute = 400e9
confidence = "estimated"

[source]
memory_bytes = "its data sheet"
reserve_bytes = "its data sheet"
cores = "its data sheet"
bandwidth = "its data sheet"
compute = "its data sheet"

[target]
runtimes = ["openvino", "llama.cpp"]
recipes = ["openvino:int4_sym_g128"]

[workload]
use_case = "chat"
context = 2048
"""


def read(text: str) -> Target:
    return parse_target(text, "mine.toml", RUNTIMES)


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(BadDeviceFile) as failure:
        read(text)
    assert failure.value.exit_code == ExitCode.USAGE
    assert all(f"mine.toml:{line}: " in failure.value.message for line, _ in failure.value.problems)
    return failure.value.problems


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)
