"""The exact shape of a Qwen checkpoint: what its config.json says, and the tensors that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packager.errors import bad_input


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape (outermost dimension first, as safetensors stores it) of one tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `count` of them, `active` per token, each `intermediate` wide."""

    count: int
    active: int
    intermediate: int
    shared_intermediate: int | None = None
    norm_topk: bool = False


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Gated DeltaNet layers with full attention at every `interval`-th layer (Qwen3-Next, Qwen3.5)."""

    interval: int
    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A text decoder of any Qwen generation. Source: the config.json of the checkpoint.

    `intermediate` is the width of one gate or up projection; first-generation configs store twice that.
    `context` is the config's max_position_embeddings.
    """

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool
    qk_norm: bool
    context: int
    rope_theta: float = 1_000_000.0
    rms_eps: float = 1e-6
    experts: Experts | None = None
    hybrid: Hybrid | None = None

    @property
    def attention_layers(self) -> int:
        """Layers that keep a key-value cache."""
        return self.layers // self.hybrid.interval if self.hybrid else self.layers

    @property
    def dense(self) -> bool:
        """No experts and no recurrent layers: what every runtime builds."""
        return self.experts is None and self.hybrid is None

    def parameters(self) -> int:
        """All weights of the text decoder; a tied output matrix counts once."""
        return sum(spec.elements for spec in tensors(self))


def tensors(shape: Shape) -> Iterator[TensorSpec]:
    """Every tensor of a dense Qwen2, Qwen2.5 or Qwen3 checkpoint, in the order the layers run."""
    if shape.model_type not in ("qwen2", "qwen3") or not shape.dense:
        raise bad_input(
            f"The tensors of a {shape.model_type!r} checkpoint are not known.",
            "Dense Qwen2, Qwen2.5 and Qwen3 checkpoints are.",
        )
    hidden, q_width, kv_width = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield TensorSpec("model.embed_tokens.weight", (shape.vocab, hidden))
    for index in range(shape.layers):
        layer = f"model.layers.{index}."
        yield TensorSpec(layer + "input_layernorm.weight", (hidden,))
        for part, width in (("q", q_width), ("k", kv_width), ("v", kv_width)):
            yield TensorSpec(f"{layer}self_attn.{part}_proj.weight", (width, hidden))
            if shape.qkv_bias:
                yield TensorSpec(f"{layer}self_attn.{part}_proj.bias", (width,))
        if shape.qk_norm:
            yield TensorSpec(layer + "self_attn.q_norm.weight", (shape.head_dim,))
            yield TensorSpec(layer + "self_attn.k_norm.weight", (shape.head_dim,))
        yield TensorSpec(layer + "self_attn.o_proj.weight", (hidden, q_width))
        yield TensorSpec(layer + "post_attention_layernorm.weight", (hidden,))
        yield TensorSpec(layer + "mlp.gate_proj.weight", (shape.intermediate, hidden))
        yield TensorSpec(layer + "mlp.up_proj.weight", (shape.intermediate, hidden))
        yield TensorSpec(layer + "mlp.down_proj.weight", (hidden, shape.intermediate))
    yield TensorSpec("model.norm.weight", (hidden,))
    if not shape.tied:
        yield TensorSpec("lm_head.weight", (shape.vocab, hidden))
