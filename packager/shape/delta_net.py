"""A Gated DeltaNet layer (Qwen3-Next, Qwen3.5): a short convolution and a state of fixed size
instead of a cache."""

from __future__ import annotations

from collections.abc import Iterator

from packager.shape.model import Hybrid, Widths


def layer(shape: Widths, hybrid: Hybrid, *, fused: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names within the layer and shapes.

    Qwen3-Next keeps its input projections `fused` (queries, keys, values and gate in one, beta and
    alpha in the other); Qwen3.5 keeps four matrices.
    """
    yield "linear_attn.dt_bias", (hybrid.value_heads,)
    yield "linear_attn.A_log", (hybrid.value_heads,)
    yield "linear_attn.conv1d.weight", (hybrid.conv_width, 1, hybrid.conv_kernel)
    if fused:
        yield (
            "linear_attn.in_proj_qkvz.weight",
            (hybrid.conv_width + hybrid.value_width, shape.hidden),
        )
        yield "linear_attn.in_proj_ba.weight", (2 * hybrid.value_heads, shape.hidden)
    else:
        yield "linear_attn.in_proj_qkv.weight", (hybrid.conv_width, shape.hidden)
        yield "linear_attn.in_proj_z.weight", (hybrid.value_width, shape.hidden)
        yield "linear_attn.in_proj_b.weight", (hybrid.value_heads, shape.hidden)
        yield "linear_attn.in_proj_a.weight", (hybrid.value_heads, shape.hidden)
    yield "linear_attn.norm.weight", (hybrid.value_head_dim,)
    yield "linear_attn.out_proj.weight", (shape.hidden, hybrid.value_width)
