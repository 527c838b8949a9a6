"""Checkpoints whose weights are stored in groups, by format; what every engine takes over of them,
and what it does not."""

from __future__ import annotations

from typing import Any

from tests.support.quantized_checkpoints import awq, compressed, gptq


def by_gptq(group: int = 32, bits: int = 4, **more: Any) -> tuple[Any, dict[str, Any]]:
    told = {"quant_method": "gptq", "bits": bits, "group_size": group}
    return gptq(bits, group, **more), told


def by_awq(group: int) -> tuple[Any, dict[str, Any]]:
    return awq(group), {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}


def by_compressed(group: int, symmetric: bool) -> tuple[Any, dict[str, Any]]:
    weights = {"weights": {"num_bits": 4, "group_size": group}}
    told = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return compressed(4, group, symmetric), told | {"config_groups": {"group_0": weights}}


def by_coarse_awq() -> tuple[Any, dict[str, Any]]:
    return awq(64, coarse=True), by_awq(64)[1]


TAKEN = {
    "GPTQ, symmetric": by_gptq(32),
    "GPTQ, asymmetric": by_gptq(128, symmetric=False),
    "AWQ": by_awq(64),
    "AWQ with scales of few bits": by_coarse_awq(),
    "compressed-tensors": by_compressed(32, False),
    "compressed-tensors, symmetric": by_compressed(32, True),
}
EXACT = {
    "GPTQ, symmetric": "Q4_0",
    "compressed-tensors, symmetric": "Q4_0",
    "AWQ with scales of few bits": "Q4_1",
}
"""What ggml's blocks hold, and as which."""
REFUSED = {
    "act-order": (by_gptq(32, act=True), "another order"),
    "odd groups": (by_gptq(16), "16 groups for 256 columns"),
    "a group for a row": (by_gptq(-1), "1 groups for 256 columns"),
    "3 bits": (by_gptq(32, bits=3), "stored in 3 bits"),
}
