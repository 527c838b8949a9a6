"""The first generation (Qwen-7B and its like): fused attention input, w1 and w2 instead of up and
gate; else the network of Qwen2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from packager.shape.model import AnyShape, Widths
from packager.shape.names import FIRST_GENERATION


def as_qwen2(shape: AnyShape) -> AnyShape:
    """The shape of the checkpoint in Qwen2 form, as packager.checkpoint.rewrite writes it; any
    other shape as it is."""
    return replace(shape, model_type="qwen2") if shape.model_type == FIRST_GENERATION else shape


def layer(shape: Widths) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names within the layer and shapes. `mlp.w2` goes through the activation: it is the gate."""
    width = shape.heads * shape.head_dim
    yield "ln_1.weight", (shape.hidden,)
    yield "attn.c_attn.weight", (3 * width, shape.hidden)
    if shape.qkv_bias:
        yield "attn.c_attn.bias", (3 * width,)
    yield "attn.c_proj.weight", (shape.hidden, width)
    yield "ln_2.weight", (shape.hidden,)
    yield "mlp.w1.weight", (shape.intermediate, shape.hidden)
    yield "mlp.w2.weight", (shape.intermediate, shape.hidden)
    yield "mlp.c_proj.weight", (shape.hidden, shape.intermediate)
