"""The forward pass: one layer after the other over all sequences, the weights of one layer in
memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint
from packager.errors import usage
from packager.reference import first_generation
from packager.reference.arithmetic import Floats, rms_norm
from packager.reference.attention import attention
from packager.reference.delta_net import delta_net
from packager.reference.feed_forward import feed_forward
from packager.reference.rope import Rope
from packager.reference.weights import Weights
from packager.runtime import Report
from packager.shape import FIRST_GENERATION, Shape
from packager.shape.tensors import naming_of

Ids = npt.NDArray[np.int64]

_TOKENS = 2048
"""Tokens whose activations within a layer stand in memory at once; a longer sequence is taken
whole."""


def hidden_states(
    checkpoint: Checkpoint, sequences: Sequence[npt.ArrayLike], report: Report
) -> Floats:
    """The state behind the last norm of every token, (all tokens, hidden), the sequences one after
    the other.

    Every sequence begins at position 0 and sees itself alone. Memory: the states, one layer, and
    the activations of about 2,048 tokens. Raises PackError for token ids that the vocabulary does
    not have, for a rope type that is not known, and for sequences that are longer than the first
    generation takes without changing its frequencies.
    """
    shape = checkpoint.shape
    ids = [token_ids(sequence, shape) for sequence in sequences]
    _check_length(shape, checkpoint.config, max(map(len, ids), default=0))
    lengths = [len(sequence) for sequence in ids]
    x = embedded(checkpoint, ids)
    return through_layers(checkpoint, x, lengths, Rope(checkpoint.positions), report)


def embedded(checkpoint: Checkpoint, ids: Sequence[Ids]) -> Floats:
    """The rows of the embedding (all tokens, hidden), one sequence after the other."""
    shape = checkpoint.shape
    first = shape.model_type == FIRST_GENERATION
    with Weights(checkpoint, naming_of(shape).body) as outer:
        embedding = f"{'wte' if first else 'embed_tokens'}.weight"
        return np.concatenate(
            [outer.rows(embedding, sequence) for sequence in ids]
            or [np.empty((0, shape.hidden), np.float32)]
        )


def through_layers(
    checkpoint: Checkpoint,
    x: Floats,
    lengths: list[int],
    rope: Rope,
    report: Report,
    added: Sequence[Floats] = (),
) -> Floats:
    """The state behind the last norm of tokens that are there as embeddings `x` (all tokens,
    hidden), which is overwritten; the sequences have `lengths`. `added`, as large as `x`, are added
    to the states behind the first layers, one each."""
    shape = checkpoint.shape
    naming = naming_of(shape)
    first = shape.model_type == FIRST_GENERATION
    groups = _groups(lengths)
    for layer in range(shape.layers):
        window = checkpoint.windows[layer]
        with Weights(checkpoint, f"{naming.body}{'h' if first else 'layers'}.{layer}.") as weights:
            for part, own in groups:
                x[part] = _layer(shape, weights, rope, x[part], own, layer, window)
        if layer < len(added):
            x += added[layer]
        report.progress(layer + 1, shape.layers, "layers")
    with Weights(checkpoint, naming.body) as outer:
        weight = outer.get(f"{'ln_f' if first else 'norm'}.weight") + np.float32(norm_offset(shape))
        return rms_norm(x, weight, shape.rms_eps)


def _layer(
    shape: Shape,
    weights: Weights,
    rope: Rope,
    x: Floats,
    lengths: list[int],
    layer: int,
    window: int | None,
) -> Floats:
    if shape.model_type == FIRST_GENERATION:
        return first_generation.layer(shape, weights, rope, x, lengths)
    offset = np.float32(norm_offset(shape))
    normed = rms_norm(x, weights.get("input_layernorm.weight") + offset, shape.rms_eps)
    if shape.full_attention(layer):
        x = x + attention(shape, weights, rope, normed, lengths, window, float(offset))
    else:
        x = x + delta_net(shape, weights, normed, lengths)
    normed = rms_norm(x, weights.get("post_attention_layernorm.weight") + offset, shape.rms_eps)
    return np.asarray(x + feed_forward(shape, weights, normed))


def norm_offset(shape: Shape) -> float:
    """The hybrids store their norms' weights as the difference from one."""
    return 1.0 if shape.hybrid is not None else 0.0


def token_ids(sequence: npt.ArrayLike, shape: Shape) -> Ids:
    """The sequence as whole numbers. Raises PackError (usage) when it is empty or has an id beyond
    the vocabulary."""
    ids = np.asarray(sequence)
    if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise usage("A sequence for the reference is one row of token ids, at least one.")
    if ids.min() < 0 or ids.max() >= shape.vocab:
        outside = ids.min() if ids.min() < 0 else ids.max()
        raise usage(
            f"A sequence for the reference has the token id {outside}, outside a vocabulary of "
            f"{shape.vocab}."
        )
    return ids.astype(np.int64)


def _check_length(shape: Shape, config: Mapping[str, Any], longest: int) -> None:
    limit = config.get("seq_length") or shape.context
    if shape.model_type == FIRST_GENERATION and longest > limit:
        raise usage(
            f"A sequence of {longest} tokens is longer than the {limit} that this first-generation "
            "checkpoint was trained with: "
            "beyond them its own code changes the rotary frequencies, which no engine does.",
            f"Cut the text into sequences of at most {limit} tokens.",
        )


def _groups(lengths: list[int]) -> list[tuple[slice, list[int]]]:
    """Neighbouring sequences of about `_TOKENS` tokens together: where they lie, and how long each
    is."""
    groups: list[tuple[slice, list[int]]] = []
    start = end = 0
    current: list[int] = []
    for length in lengths:
        if current and end - start + length > _TOKENS:
            groups.append((slice(start, end), current))
            start, current = end, []
        current.append(length)
        end += length
    return [*groups, (slice(start, end), current)] if current else groups
