"""A Gated DeltaNet layer (Qwen3-Next, Qwen3.5): a short convolution, then a state per head that
forgets and corrects itself.

Source: modeling_qwen3_next.py and modeling_qwen3_5.py of transformers 5.5; arXiv 2412.06464. The
state is brought forward token by token, as the definition has it.
"""

from __future__ import annotations

import numpy as np

from packager.reference.arithmetic import Floats, rms_norm, sigmoid, silu, softplus, unit
from packager.reference.weights import Weights
from packager.shape import Hybrid, Shape

_UNIT_EPS = 1e-6


def delta_net(shape: Shape, weights: Weights, x: Floats, lengths: list[int]) -> Floats:
    """One layer for several sequences that stand one after the other in `x` (tokens, hidden),
    `lengths` tokens each."""
    hybrid = shape.hybrid
    assert hybrid is not None
    count = len(x)
    mixed, gate, beta, alpha = _inputs(hybrid, weights, x)
    kernel = weights.get("linear_attn.conv1d.weight")[:, 0].T
    decay = -np.exp(weights.get("linear_attn.A_log")) * softplus(
        alpha + weights.get("linear_attn.dt_bias")
    )
    beta = sigmoid(beta)
    out = np.empty((count, hybrid.value_heads, hybrid.value_head_dim), dtype=np.float32)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        queries, keys, values = _heads(hybrid, silu(_convolve(mixed[part], kernel)))
        out[part] = _recurrence(queries, keys, values, np.exp(decay[part]), beta[part])
        start += length
    # This norm, unlike all others of these models, multiplies by its weight and not by one more.
    normed = rms_norm(out, weights.get("linear_attn.norm.weight"), shape.rms_eps)
    normed *= silu(gate.reshape(out.shape))
    return weights.linear(normed.reshape(count, -1), "linear_attn.out_proj")


def _inputs(hybrid: Hybrid, weights: Weights, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Queries with keys and values (tokens, conv width), gate (tokens, value width), beta and alpha
    (tokens, value heads)."""
    if "linear_attn.in_proj_qkv.weight" in weights:
        mixed, gate, beta, alpha = (
            weights.linear(x, f"linear_attn.in_proj_{part}") for part in ("qkv", "z", "b", "a")
        )
        return mixed, gate, beta, alpha
    # Qwen3-Next interleaves them by key head: query, key, the values and the gates of the value
    # heads that belong to it.
    count, keys = len(x), hybrid.key_heads
    per_key = hybrid.value_heads // keys
    fused = weights.linear(x, "linear_attn.in_proj_qkvz").reshape(count, keys, -1)
    width, values = hybrid.key_head_dim, per_key * hybrid.value_head_dim
    parts = np.split(fused, [width, 2 * width, 2 * width + values], axis=-1)
    query, key, value, gate = (part.reshape(count, -1) for part in parts)
    both = weights.linear(x, "linear_attn.in_proj_ba").reshape(count, keys, 2, per_key)
    beta, alpha = both[:, :, 0].reshape(count, -1), both[:, :, 1].reshape(count, -1)
    return np.concatenate([query, key, value], axis=-1), gate, beta, alpha


def _convolve(x: Floats, kernel: Floats) -> Floats:
    """Every channel of `x` (tokens, channels) with its own column of `kernel` (taps, channels), the
    last tap on the token itself."""
    taps = len(kernel)
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1]), dtype=np.float32), x])
    out = np.zeros_like(x)
    for tap in range(taps):
        out += padded[tap : tap + len(x)] * kernel[tap]
    return out


def _heads(hybrid: Hybrid, mixed: Floats) -> tuple[Floats, Floats, Floats]:
    """Queries and keys of length one, repeated for every value head, and values: (tokens, value
    heads, width)."""
    count = len(mixed)
    query, key, value = np.split(mixed, [hybrid.key_width, 2 * hybrid.key_width], axis=-1)
    repeat = hybrid.value_heads // hybrid.key_heads
    queries = unit(query.reshape(count, hybrid.key_heads, -1), _UNIT_EPS).repeat(
        repeat, axis=1
    ) * np.float32(hybrid.key_head_dim**-0.5)
    keys = unit(key.reshape(count, hybrid.key_heads, -1), _UNIT_EPS).repeat(repeat, axis=1)
    return queries, keys, value.reshape(count, hybrid.value_heads, -1)


def _recurrence(
    queries: Floats, keys: Floats, values: Floats, kept: Floats, beta: Floats
) -> Floats:
    """What each query reads from the state after its own token was written into it."""
    state = np.zeros((*keys.shape[1:], values.shape[-1]), dtype=np.float32)
    out = np.empty_like(values)
    for token in range(len(values)):
        state *= kept[token][:, None, None]
        # The state predicts the value of this key; what is missing is written, as much as beta
        # allows.
        predicted = np.matmul(keys[token][:, None], state)[:, 0]
        missing = (values[token] - predicted) * beta[token][:, None]
        state += keys[token][:, :, None] * missing[:, None]
        out[token] = np.matmul(queries[token][:, None], state)[:, 0]
    return out
