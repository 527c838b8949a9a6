"""Qwen3: dense, normalised queries and keys instead of biases, a head width of its own."""

from __future__ import annotations

from targets.gguf.arch.base import Architecture
from targets.gguf.arch.qwen2 import ATTENTION, FEED_FORWARD

QK_NORM = ("attn_q_norm.weight", "attn_k_norm.weight")


class Qwen3(Architecture):
    """The dense third generation."""

    arch = "QWEN3"
    layer_tensors = (*ATTENTION, *QK_NORM, *FEED_FORWARD)
