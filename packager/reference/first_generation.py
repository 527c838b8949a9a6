"""A layer of the first generation (Qwen-7B and its like), under its own names. Source:
modeling_qwen.py of Qwen/Qwen-7B."""

from __future__ import annotations

import numpy as np

from packager.reference.arithmetic import Floats, rms_norm, silu
from packager.reference.attention import attend
from packager.reference.rope import Rope
from packager.reference.weights import Weights
from packager.shape import Shape


def layer(shape: Shape, weights: Weights, rope: Rope, x: Floats, lengths: list[int]) -> Floats:
    """`x` (tokens, hidden) after attention and feed-forward part, for sequences of `lengths`
    tokens."""
    count = len(x)
    normed = rms_norm(x, weights.get("ln_1.weight"), shape.rms_eps)
    fused = weights.linear(normed, "attn.c_attn").reshape(count, 3, shape.heads, shape.head_dim)
    mixed = attend(rope, fused[:, 0], fused[:, 1], fused[:, 2], lengths)
    x = x + weights.linear(mixed.reshape(count, -1), "attn.c_proj")
    normed = rms_norm(x, weights.get("ln_2.weight"), shape.rms_eps)
    # Of the two inputs it is the second one that goes through the activation.
    hidden = weights.linear(normed, "mlp.w1") * silu(weights.linear(normed, "mlp.w2"))
    return np.asarray(x + weights.linear(hidden, "mlp.c_proj"))
