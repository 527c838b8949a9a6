"""Resident bytes of a loaded model: weights and cache exactly, the rest from measured constants
(memory.toml)."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from packager.predict.memory import Footprint, kv_cache_bytes
from packager.recipe import Recipe
from packager.shape import Shape
from targets.gguf.sizes import Sizes

_FILE = Path(__file__).with_name("memory.toml")
_FLOAT = 4


@cache
def constants() -> dict[str, Any]:
    """memory.toml."""
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def footprint(shape: Shape, recipe: Recipe, sizes: Sizes, context: int) -> Footprint:
    """What stays resident while a full context is answered.

    The model is loaded without mapping the file: tensors that the CPU kernels repack then exist
    once, and the size does not depend on which instructions the processor has. Mapping would keep
    the file's pages beside the repacked copies.
    """
    compute = activations(shape, context) + _FLOAT * shape.vocab
    return Footprint(
        sizes.data,
        kv_cache_bytes(shape, padded_context(context), recipe.kv_bits),
        compute,
        overhead(shape),
    )


def activations(shape: Shape, context: int) -> int:
    """What stands between the layers while a batch of a prompt is computed, and the attention
    mask."""
    known = constants()
    batch, compute = min(known["batch"], context), known["compute"]
    per_token = compute["vectors_of_hidden"] * shape.hidden + compute[
        "vectors_of_feed_forward"
    ] * feed_forward(shape)
    return int(_FLOAT * batch * per_token + compute["mask_bytes"] * batch * context)


def overhead(shape: Shape) -> int:
    """The process itself, and the vocabulary in it."""
    known = constants()["overhead"]
    return int(known["engine_bytes"] + known["bytes_per_token_of_vocabulary"] * shape.vocab)


def feed_forward(shape: Shape) -> int:
    """Width of the feed-forward part that one token goes through: of a mixture, the active experts
    together."""
    if shape.experts is None:
        return shape.intermediate
    return shape.experts.active * shape.experts.intermediate + (
        shape.experts.shared_intermediate or 0
    )


def padded_context(context: int) -> int:
    """Cells of the cache: llama.cpp rounds the context up to 256."""
    return -(-context // 256) * 256
