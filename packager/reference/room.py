"""The memory that a reference takes, from the shape and the lengths of its sequences."""

from __future__ import annotations

from collections.abc import Sequence

from packager.shape import Shape
from packager.shape.tensors import layer_tensors

_GROUP = 2048
_QUERIES = 256
_IMPORTS = 150 << 20
"""An interpreter with numpy, its threads' buffers and a checkpoint's headers."""


def memory_bytes(shape: Shape, lengths: Sequence[int]) -> int:
    """Bytes resident at most while `hidden_states` runs over sequences of `lengths` tokens: a
    bound, not a forecast.

    Counted in float32: all states twice, the largest layer with one of its experts, its activations
    for about 2,048 tokens and the attention's scores of 256 queries. What the checkpoint's files
    have mapped can be given up at any time.
    """
    longest = max(lengths, default=0)
    count = sum(lengths)
    group = min(count, max(_GROUP, longest))
    layers = {0, shape.hybrid.interval - 1 if shape.hybrid else 0}
    weights = max(_layer_elements(shape, layer) for layer in layers)
    wide = max(
        shape.intermediate,
        *(
            (shape.experts.intermediate, shape.experts.shared_intermediate or 0)
            if shape.experts
            else (0,)
        ),
    )
    mixing = 4 * shape.heads * shape.head_dim + (6 * shape.hybrid.conv_width if shape.hybrid else 0)
    scores = 3 * shape.heads * min(_QUERIES, longest) * longest
    return _IMPORTS + 4 * (
        2 * count * shape.hidden + weights + group * (6 * shape.hidden + 4 * wide + mixing) + scores
    )


def _layer_elements(shape: Shape, layer: int) -> int:
    """Elements of one layer, of its experts one alone: they are read one after the other."""
    whole = 0
    experts = 0
    for spec in layer_tensors(shape, layer):
        if ".experts." in spec.name:
            experts += spec.elements
        else:
            whole += spec.elements
    return whole + 2 * experts // (shape.experts.count if shape.experts else 1)
