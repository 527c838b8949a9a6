"""The first generation (Qwen-1.8B to 72B): one fused attention projection, a feed-forward width
stored twice over."""

from __future__ import annotations

import gguf

from targets.gguf.arch.base import Architecture


class Qwen(Architecture):
    """The first generation. Its checkpoints bring Python of their own, which is not needed: the
    shape is in config.json."""

    arch = "QWEN"
    layer_tensors = (
        "attn_norm.weight",
        "attn_qkv.weight",
        "attn_qkv.bias",
        "attn_output.weight",
        "ffn_norm.weight",
        "ffn_gate.weight",
        "ffn_up.weight",
        "ffn_down.weight",
    )

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The older names of the same things."""
        config = self.config
        super().describe(writer)
        if (
            config.get("max_position_embeddings") is None
            and (context := config.get("seq_length")) is not None
        ):
            writer.add_context_length(context)
        if (eps := config.get("layer_norm_epsilon")) is not None:
            writer.add_layer_norm_eps(eps)
            # llama.cpp refuses the model without this key; its converter writes the other name
            # alone.
            writer.add_layer_norm_rms_eps(eps)
        if (theta := config.get("rotary_emb_base")) is not None:
            writer.add_rope_freq_base(theta)
