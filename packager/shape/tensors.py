"""The tensors of a text decoder: names and shapes as the official checkpoints store them.

Sources: the weight maps of the official repositories and transformers 5.5 (models/qwen2, qwen2_moe,
qwen3, qwen3_moe, qwen3_next, qwen3_5, qwen3_5_moe); for the first generation modeling_qwen.py of
Qwen/Qwen-7B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from packager.errors import bad_input
from packager.shape import delta_net, first_generation, mixture
from packager.shape.model import Widths
from packager.shape.names import FIRST_GENERATION, KNOWN_TYPES, NAMINGS, Naming


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape (outermost dimension first, as safetensors stores it) of one tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)


def tensors(shape: Widths, naming: Naming | None = None) -> Iterator[TensorSpec]:
    """Every tensor of the text decoder, in the order the layers run; `naming` in place of the model
    type's own.

    Raises PackError (exit code 6) for an unknown model type. Vision and audio encoders and the
    draft module for multi-token prediction are not part of the text decoder.
    """
    outer = list(outer_tensors(shape))
    yield outer[0]
    for layer in range(shape.layers):
        yield from layer_tensors(shape, layer, naming)
    yield from outer[1:]


def outer_tensors(shape: Widths) -> Iterator[TensorSpec]:
    """What stands outside the layers: the embedding, the last norm, and the output matrix unless it
    is tied."""
    naming = naming_of(shape)
    first = naming.decoder == FIRST_GENERATION
    yield TensorSpec(
        f"{naming.body}{'wte' if first else 'embed_tokens'}.weight", (shape.vocab, shape.hidden)
    )
    yield TensorSpec(f"{naming.body}{'ln_f' if first else 'norm'}.weight", (shape.hidden,))
    if not shape.tied:
        yield TensorSpec(f"{naming.head}lm_head.weight", (shape.vocab, shape.hidden))


def layer_tensors(shape: Widths, layer: int, naming: Naming | None = None) -> Iterator[TensorSpec]:
    """The tensors of one layer, counted from 0; `naming` in place of the model type's own."""
    naming = naming or naming_of(shape)
    if naming.decoder == FIRST_GENERATION:
        parts, prefix = first_generation.layer(shape), f"{naming.body}h.{layer}."
    else:
        parts, prefix = _layer(shape, naming, layer), f"{naming.body}layers.{layer}."
    for name, size in parts:
        yield TensorSpec(prefix + name, size)


@lru_cache(maxsize=512)
def parameters(shape: Widths) -> int:
    """The sum of all tensors' elements. Cached: `fit` asks for every variant many times."""
    # Layers are of two kinds at most, and fused experts count like single ones: no need to list up
    # to 141,312 matrices.
    naming = replace(naming_of(shape), experts="fused")
    total = sum(spec.elements for spec in outer_tensors(shape))
    for count, layer in (
        (shape.attention_layers, (shape.hybrid.interval if shape.hybrid else 1) - 1),
        (shape.recurrent_layers, 0),
    ):
        parts = (
            first_generation.layer(shape)
            if naming.decoder == FIRST_GENERATION
            else _layer(shape, naming, layer)
        )
        total += count * sum(prod(size) for _, size in parts) if count else 0
    return total


def naming_of(shape: Widths) -> Naming:
    """How checkpoints of this model type are laid out. Raises PackError (exit code 6) for an
    unknown one."""
    naming = NAMINGS.get(shape.model_type)
    if naming is None:
        raise bad_input(
            f"The tensors of a {shape.model_type!r} checkpoint are not known.",
            f"Known model types: {', '.join(KNOWN_TYPES)}.",
        )
    return naming


def _layer(shape: Widths, naming: Naming, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "input_layernorm.weight", (shape.hidden,)
    if shape.hybrid is not None and not shape.full_attention(layer):
        yield from delta_net.layer(shape, shape.hybrid, fused=naming.decoder == "qwen3_next")
    else:
        yield from _attention(shape)
    yield "post_attention_layernorm.weight", (shape.hidden,)
    if shape.experts is None:
        yield from mixture.feed_forward("mlp.", shape.hidden, shape.intermediate)
    else:
        yield from mixture.layer(shape, shape.experts, naming.experts)


def _attention(shape: Widths) -> Iterator[tuple[str, tuple[int, ...]]]:
    q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # The full-attention layers of the hybrids gate their output; the gate shares the matrix of the
    # queries.
    for part, width in (
        ("q", q_width * (2 if shape.hybrid else 1)),
        ("k", kv_width),
        ("v", kv_width),
    ):
        yield f"self_attn.{part}_proj.weight", (width, shape.hidden)
        if shape.qkv_bias:
            yield f"self_attn.{part}_proj.bias", (width,)
    if shape.qk_norm:
        yield "self_attn.q_norm.weight", (shape.head_dim,)
        yield "self_attn.k_norm.weight", (shape.head_dim,)
    yield "self_attn.o_proj.weight", (shape.hidden, q_width)
