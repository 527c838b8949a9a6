"""Qwen1.5, Qwen2, Qwen2.5, QwQ: dense, with biases on the query, key and value projections."""

from __future__ import annotations

from targets.gguf.arch.base import Architecture

ATTENTION = (
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
)
QKV_BIAS = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
FEED_FORWARD = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")


class Qwen2(Architecture):
    """The dense second generation."""

    arch = "QWEN2"
    as_wide_as_hidden = True
    layer_tensors = (*ATTENTION, *QKV_BIAS, *FEED_FORWARD)
