"""Qwen3-30B-A3B, 235B-A22B and Coder: experts without a shared one."""

from __future__ import annotations

from targets.gguf.arch.experts import EXPERTS, WithExperts
from targets.gguf.arch.qwen2 import ATTENTION
from targets.gguf.arch.qwen3 import QK_NORM


class Qwen3Moe(WithExperts):
    """The third generation's mixture of experts."""

    arch = "QWEN3MOE"
    layer_tensors = (*ATTENTION, *QK_NORM, *EXPERTS)
