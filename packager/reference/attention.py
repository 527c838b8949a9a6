"""Full causal attention of every generation but the first: grouped heads, norms of queries and
keys, a gate in the hybrids."""

from __future__ import annotations

import numpy as np

from packager.reference.arithmetic import Floats, rms_norm, sigmoid, softmax
from packager.reference.rope import Rope
from packager.reference.weights import Weights
from packager.shape import Shape

_ROWS = 256
"""Queries whose scores stand in memory at once, for all heads."""


def attention(
    shape: Shape,
    weights: Weights,
    rope: Rope,
    x: Floats,
    lengths: list[int],
    window: int | None,
    offset: float,
) -> Floats:
    """One layer for several sequences that stand one after the other in `x` (tokens, hidden),
    `lengths` tokens each.

    `window` is how many tokens back a query sees, None for all; `offset` is added to the norms'
    weights.
    """
    count = len(x)
    queries = weights.linear(x, "self_attn.q_proj").reshape(count, shape.heads, -1)
    keys = weights.linear(x, "self_attn.k_proj").reshape(count, shape.kv_heads, shape.head_dim)
    values = weights.linear(x, "self_attn.v_proj").reshape(count, shape.kv_heads, shape.head_dim)
    # The hybrids keep the gate of a head behind its query.
    gate = queries[..., shape.head_dim :]
    queries = queries[..., : shape.head_dim]
    if shape.qk_norm:
        queries = rms_norm(
            queries, weights.get("self_attn.q_norm.weight") + np.float32(offset), shape.rms_eps
        )
        keys = rms_norm(
            keys, weights.get("self_attn.k_norm.weight") + np.float32(offset), shape.rms_eps
        )
    mixed = attend(rope, queries, keys, values, lengths, window)
    if gate.shape[-1]:
        mixed = mixed * sigmoid(gate)
    return weights.linear(mixed.reshape(count, -1), "self_attn.o_proj")


def attend(
    rope: Rope,
    queries: Floats,
    keys: Floats,
    values: Floats,
    lengths: list[int],
    window: int | None = None,
) -> Floats:
    """What every query takes from the values up to its own position: (tokens, heads, head width),
    as all three arguments.

    Keys and values may have fewer heads than queries; each serves as many neighbouring query heads.
    """
    mixed = np.empty_like(queries)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        # Some positions depend on the length of the sequence.
        cosine, sine = rope.table(length)
        turned, turned_keys = (
            rope.turn(queries[part], cosine, sine),
            rope.turn(keys[part], cosine, sine),
        )
        mixed[part] = _one_sequence(turned, turned_keys, values[part], window)
        start += length
    return mixed


def _one_sequence(queries: Floats, keys: Floats, values: Floats, window: int | None) -> Floats:
    length, heads, width = queries.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    grouped = queries.reshape(length, kv_heads, group, width).transpose(1, 2, 0, 3)
    by_head, of_head = keys.transpose(1, 2, 0), values.transpose(1, 0, 2)
    scale = np.float32(width**-0.5)
    out = np.empty((length, heads, width), dtype=np.float32)
    for first in range(0, length, _ROWS):
        last = min(first + _ROWS, length)
        rows = grouped[:, :, first:last].reshape(kv_heads, -1, width)
        scores = np.matmul(rows * scale, by_head[:, :, :last]).reshape(
            kv_heads, group, last - first, last
        )
        back = np.arange(first, last)[:, None] - np.arange(last)
        hidden = back < 0 if window is None else (back < 0) | (back >= window)
        scores[..., hidden] = -np.inf
        weights = softmax(scores).reshape(kv_heads, -1, last)
        taken = np.matmul(weights, of_head[:, :last]).reshape(heads, last - first, width)
        out[first:last] = taken.transpose(1, 0, 2)
    return out
