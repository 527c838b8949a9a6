"""The recipes and the engine's costs, read from the TOML files beside this module and checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from packager.memory import Footprint
from packager.recipe import Recipe
from packager.shape import Shape
from targets.openvino import sizes

BLOCK = 32
"""Tokens of one block of the cache in openvino-genai's CPU back end."""

_FOLDER = Path(__file__).parent


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text())


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every recipe with the default cache type, best quality first."""
    table = _read("recipes.toml")
    kv, kv_row = next(iter(table["kv"].items()))
    return tuple(
        Recipe("openvino", "openvino", name, kv, kv_row["bits"], row["summary"], settings={"compression": row.get("compression")})
        for name, row in table["weights"].items()
    )


@cache
def kv_bits() -> dict[str, float]:
    """Cache types and their bits per element, scales counted, the default first."""
    return {name: row["bits"] for name, row in _read("recipes.toml")["kv"].items()}


def cache_blocks(context: int) -> int:
    """Blocks that hold `context` tokens; openvino-genai keeps one more than it fills."""
    return ceil(context / BLOCK) + 1


@dataclass(frozen=True, slots=True)
class Costs:
    """What the engine costs beside the weights, in bytes; the fields are the tables of costs.toml."""

    graph: dict[str, dict[str, int]]
    graph_per_matrix: dict[str, int]
    tokenizer: dict[str, float]
    memory: dict[str, float]

    def graph_bytes(self, shape: Shape, compression: dict[str, Any] | None) -> int:
        """Size of openvino_model.xml."""
        row = self.graph[shape.model_type]
        total = row["base"] + row["per_layer"] * shape.layers
        if compression is not None:
            outside, inside = (sizes.mode(compression, where) for where in ("outside", "inside"))
            total += self.graph_per_matrix[outside] * (1 if shape.tied else 2) + self.graph_per_matrix[inside] * 7 * shape.layers
        return total

    def tokenizer_bytes(self, vocab: int) -> int:
        """Size of the tokenizer, the detokenizer and the small JSON files."""
        return ceil(self.tokenizer["fixed"] + self.tokenizer["per_token"] * vocab)

    def cache_bytes(self, shape: Shape, kv: str, context: int) -> int:
        """Bytes of the blocks allocated for `context` tokens, scales and zero points included."""
        tokens = cache_blocks(context) * BLOCK
        elements = shape.attention_layers * shape.kv_heads * shape.head_dim * tokens
        if kv == "f16":
            return 2 * elements * 2
        # Source: openvino's CPU plug-in keeps scale and zero point as f32: for keys per channel of a block, for values per token and head.
        return ceil(2 * elements + elements * 8 / BLOCK + elements * 8 / shape.head_dim)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes in steady state: the mapped file and the repacked copy of every matrix are both resident."""
        memory = self.memory
        weights = 2 * sizes.weight_bytes(shape, recipe.settings["compression"])
        compute = ceil(memory["compute_per_hidden"] * shape.hidden + memory["compute_per_context_head"] * shape.heads * context)
        overhead = ceil(memory["overhead"] + memory["overhead_per_layer"] * shape.layers)
        return Footprint(weights, self.cache_bytes(shape, recipe.kv, context), compute, overhead)

    def build_memory(self, checkpoint: int) -> int:
        """Peak resident bytes of the conversion of a checkpoint of that many bytes."""
        return ceil(self.memory["build_base"] + self.memory["build_per_checkpoint_byte"] * checkpoint)


@cache
def costs() -> Costs:
    """The costs.toml beside this module."""
    return Costs(**_read("costs.toml"))
