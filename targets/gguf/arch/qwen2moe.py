"""Qwen1.5-MoE and Qwen2-57B-A14B: experts beside a shared one."""

from __future__ import annotations

from targets.gguf.arch.experts import EXPERTS, SHARED_EXPERT, WithExperts
from targets.gguf.arch.qwen2 import ATTENTION, QKV_BIAS


class Qwen2Moe(WithExperts):
    """The second generation's mixture of experts."""

    arch = "QWEN2MOE"
    normalised = False
    as_wide_as_hidden = True
    layer_tensors = (*ATTENTION, *QKV_BIAS, *EXPERTS, *SHARED_EXPERT)
