"""How llama.cpp's kernels for each ggml type compare, and what a layer takes beside them. The
figures are in speed.toml."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from packager.predict.forecast import Speed, prompt_parameters
from packager.shape import Shape
from targets.gguf.layers import Layers
from targets.speed_table import rows

FILE = Path(__file__).with_name("speed.toml")
_DEFAULT = "Q4_K"


def speed(shape: Shape, found: Layers) -> Speed:
    """The mean over the types of the tensors that a token reads, each with the weight of its
    bytes."""
    found_speed = _speed(shape, tuple(found.read_per_token(shape).items()))
    if shape.task == "generate":
        return found_speed
    # Logits of every token are computed as well.
    layers = prompt_parameters(shape)
    share = layers / (layers + shape.vocab * shape.hidden)
    return replace(found_speed, compute=found_speed.compute * share)


@cache
def _speed(shape: Shape, read: tuple[tuple[str, int], ...]) -> Speed:
    known = rows(FILE)
    default = known[_DEFAULT]
    parts = [(size, known.get(kind, default)) for kind, size in read]
    total = max(1, sum(size for size, _ in parts))
    return Speed(
        bandwidth=total / max(1e-9, sum(size / row.bandwidth for size, row in parts)),
        compute=total / max(1e-9, sum(size / row.compute for size, row in parts)),
        operations=default.operations_per_layer * shape.layers,
        attention=default.attention,
    )
