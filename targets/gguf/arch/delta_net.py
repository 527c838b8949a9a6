"""Gated DeltaNet layers of the hybrid generations: how their weights are arranged for ggml."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gguf

from packager.json_values import JsonObject
from packager.shape.positions import not_computed
from targets.gguf.arch.base import Architecture
from targets.gguf.tensors import OutTensor, Part

FULL = ("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
QK_NORM = ("attn_q_norm.weight", "attn_k_norm.weight", "post_attention_norm.weight")
LINEAR = (
    "attn_norm.weight",
    "attn_qkv.weight",
    "attn_gate.weight",
    "post_attention_norm.weight",
    "ssm_a",
    "ssm_conv1d.weight",
    "ssm_dt.bias",
    "ssm_norm.weight",
    "ssm_out.weight",
)


def plus_one(rows: Any) -> Any:
    """Norms are stored as the distance from one."""
    return rows + 1


def minus_exp(rows: Any) -> Any:
    """The decay is stored as the logarithm of its negative."""
    # Late: numpy, which arranging needs not.
    import numpy as np

    # Correctly rounded: in single precision two libraries differ in the last bit.
    return -np.exp(rows.astype(np.float64)).astype(np.float32)


HEADS = (
    "nextn.eh_proj.weight",
    "nextn.enorm.weight",
    "nextn.hnorm.weight",
    "nextn.shared_head_norm.weight",
)
_OUTER = {
    "mtp.fc.weight": HEADS[0],
    "mtp.pre_fc_norm_embedding.weight": HEADS[1],
    "mtp.pre_fc_norm_hidden.weight": HEADS[2],
    "mtp.norm.weight": HEADS[3],
}
"""What stands outside the draft module's layer, and what llama.cpp's converter makes of it as a
part of one more layer of the decoder (conversion/qwen.py). gguf 0.19 has no such names for these
architectures yet."""


class Hybrid(Architecture):
    """What Qwen3-Next and Qwen3.5 have in common. The draft module for multi-token prediction is
    left out unless `keep_heads` was called."""

    feed_forward: tuple[str, ...] = ()
    beta_alpha: tuple[str, ...] = ()

    def __init__(self, config: JsonObject) -> None:
        super().__init__(config)
        self.key_heads = self.number("linear_num_key_heads")
        self.value_heads = self.number("linear_num_value_heads")
        self.key_dim = self.number("linear_key_head_dim")
        self.value_dim = self.number("linear_value_head_dim")
        self.interval = self.number("full_attention_interval", 4)

    def check(self) -> None:
        """The graph keeps one width for the heads of keys and of values."""
        super().check()
        if self.key_dim != self.value_dim:
            what = f"key heads of {self.key_dim} and value heads of {self.value_dim} elements"
            raise not_computed(
                "llama.cpp", what, "No other runtime builds this generation: train with one width."
            )

    def ignored(self, name: str) -> bool:
        """The draft module unless it is kept and, of multimodal checkpoints, the encoders."""
        draft = name.startswith(("mtp.", "model.mtp.")) and not self.draft_layers
        return super().ignored(name) or draft or "visual." in name

    def keep_heads(self) -> None:
        """See Architecture."""
        self.draft_layers = 1
        arch = gguf.MODEL_ARCH[self.arch]
        self.names = gguf.get_tensor_name_map(arch, self.layers + self.draft_layers)

    def new_name(self, name: str) -> str:
        """The draft module is one more layer."""
        if name in _OUTER:
            return f"blk.{self.layers}.{_OUTER[name]}"
        return super().new_name(name.replace("mtp.layers.0.", f"model.layers.{self.layers}.", 1))

    def full_attention(self, layer: int) -> bool:
        """Whether the layer keeps a key-value cache."""
        if layer >= self.layers:
            return True
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list) and len(kinds) == self.layers:
            return bool(kinds[layer] == "full_attention")
        return (layer + 1) % self.interval == 0

    def required(self, layer: int) -> tuple[str, ...]:
        """Full attention or DeltaNet, and the feed-forward part."""
        attention = (*FULL, *QK_NORM) if self.full_attention(layer) else (*LINEAR, *self.beta_alpha)
        return (*attention, *self.feed_forward, *(HEADS if layer >= self.layers else ()))

    def convert_one(self, name: str, shape: tuple[int, ...]) -> Iterable[OutTensor]:
        """Norms, decay, convolution; then what the generation arranges itself."""
        if name in _OUTER:
            yield self.take(name, shape, change=plus_one if len(shape) == 1 else None)
        elif name.endswith(".A_log"):
            yield self.arrange(self.take(name, shape, change=minus_exp))
        elif name.endswith(".dt_bias"):
            taken = self.take(name.removesuffix("dt_bias") + "dt_proj.bias", shape)
            yield self.arrange(OutTensor(taken.name, shape, (Part(name, 0, 1),), f32=True))
        elif name.endswith(".conv1d.weight"):
            flat = (shape[0], shape[-1])
            yield self.arrange(
                OutTensor(self.new_name(name), flat, (Part(name, 0, shape[0]),), f32=True)
            )
        elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            yield self.take(name, shape, change=plus_one)
        else:
            yield from self.arrange_projection(name, shape)

    def arrange(self, tensor: OutTensor) -> OutTensor:
        """The order of the value heads in small tensors; as stored unless a generation says
        otherwise."""
        return tensor

    def arrange_projection(self, name: str, shape: tuple[int, ...]) -> Iterable[OutTensor]:
        """The input projections; as stored unless a generation says otherwise."""
        yield self.take(name, shape)

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The state's dimensions besides."""
        super().describe(writer)
        if self.draft_layers:
            writer.add_nextn_predict_layers(self.draft_layers)
        writer.add_ssm_conv_kernel(self.number("linear_conv_kernel_dim"))
        writer.add_ssm_state_size(self.key_dim)
        writer.add_ssm_group_count(self.key_heads)
        writer.add_ssm_time_step_rank(self.value_heads)
        writer.add_ssm_inner_size(self.value_dim * self.value_heads)
        if self.config.get("layer_types") is not None:
            # gguf 0.19 has no method for it yet.
            whole = range(self.layers + self.draft_layers)
            recurrent = [not self.full_attention(layer) for layer in whole]
            writer.add_array(f"{self.gguf_name}.attention.recurrent_layers", recurrent)
        writer.add_full_attention_interval(self.interval)
        writer.add_rope_dimension_count(self.positions.width)
