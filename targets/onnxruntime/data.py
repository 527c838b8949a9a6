"""The recipes and the engine's costs, read from the TOML files beside this module and checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from math import ceil, floor
from pathlib import Path
from typing import Any

import msgspec

from packager.errors import bad_input
from packager.json_values import object_or_empty
from packager.predict.memory import Footprint, kv_bits, kv_cache_bytes
from packager.recipe import Recipe
from packager.remembered import last_answer
from packager.shape import Shape
from targets.onnxruntime import sizes
from targets.onnxruntime.quantization import Settings, parse

NAME = "onnxruntime"
PREFIX = "onnx"
CHUNK = 512
"""Tokens of a prompt that are worked on at once: what stands between the layers grows with them."""

ADAPTER_INPUTS = 6_100
"""Bytes of a layer's inputs for adapters in model.onnx: seven pairs of them with their products."""

_FOLDER = Path(__file__).parent
_RECIPES = "recipes.toml"

# Any: TOML that is looked at before it is used.


class HeldBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recipes that lose too much in a task: those with so many bits of the embedding, which is the
    output matrix."""

    head_bits: int
    why: str
    source: str


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((_FOLDER / _RECIPES).read_text(encoding="utf-8"))


@cache
def _held_back() -> dict[str, HeldBack]:
    return msgspec.convert(_file()["held_back"], dict[str, HeldBack])


def held_back(recipe: Recipe, task: str) -> str | None:
    """See packager.runtime.HoldsBack."""
    row = _held_back().get(task)
    quantization = settings_of(recipe).quantization if row else None
    if row is None or quantization is None or quantization.head_bits > row.head_bits:
        return None
    return f"{recipe.id} comes after other recipes: {row.why}. Source: {row.source}."


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every recipe: those for the CPU, then the other providers; of each the best quality first."""
    path = _FOLDER / _RECIPES
    recipes = []
    for name, row in _file()["weights"].items():
        row = dict(row)
        summary = row.pop("summary", None)
        if not isinstance(summary, str):
            raise bad_input(f"{path}: weights.{name} has no summary.")
        settings = parse(row, f"{path}: weights.{name}")
        # What is not quantized is held to what 16 bits lose, also in 32.
        grade = f"{settings.quantization.bits if settings.quantization else 16}-bit"
        recipes.append(
            Recipe(
                *(NAME, PREFIX, name, settings.kv, kv_bits(settings.kv), summary),
                settings=settings.as_dict(),
                provider=settings.provider,
                grade=grade,
            )
        )
    return tuple(recipes)


@last_answer
def settings_of(recipe: Recipe) -> Settings:
    """The settings of a recipe, checked again: they may come from a manifest."""
    settings = recipe.settings
    if settings.get("adopted"):
        # Types and bits are its own; how its numbers were found, nothing tells.
        quantization = object_or_empty(settings, "quantization")
        settings = {key: settings.get(key) for key in ("provider", "precision")}
        settings |= {"quantization": {"method": "rtn", **quantization} if quantization else None}
    return parse(settings, recipe.id)


def cache_bytes(shape: Shape, recipe: Recipe, context: int) -> int:
    """Bytes of the key-value cache for `context` tokens, in the precision of the activations."""
    return kv_cache_bytes(shape, context, recipe.kv_bits)


@dataclass(frozen=True, slots=True)
class Costs:
    """What the engine costs beside the weights, in bytes; the fields are the tables of
    costs.toml."""

    graph: dict[str, dict[str, int]]
    tokenizer: dict[str, dict[str, float]]
    memory: dict[str, dict[str, float]]
    retrieval: dict[str, float]
    build: dict[str, float]

    def graph_bytes(self, shape: Shape, settings: Settings) -> int:
        """Size of model.onnx: the graph without the weights."""
        quantization = settings.layers
        kind = "float"
        if quantization is not None:
            kind = "zero_points" if quantization.zero_points else "quantized"
        row = self.graph[f"{shape.model_type}_{kind}"]
        per_layer = row["per_layer"] + (ADAPTER_INPUTS if settings.adapter_inputs else 0)
        return row["base"] + per_layer * shape.layers

    def tokenizer_bytes(self, shape: Shape) -> int:
        """Size of the tokenizer and the small JSON files."""
        row = self.tokenizer[shape.model_type]
        return ceil(row["fixed"] + row["per_token"] * shape.vocab)

    def footprint(self, shape: Shape, settings: Settings, context: int) -> Footprint:
        """Resident bytes while a context is full, and the peak of loading. The cache is allocated
        at once."""
        if shape.task != "generate":
            return self._of_whole_texts(shape, settings, context)
        row = self.memory["cpu" if settings.provider == "cpu" else "gpu"]
        head = sizes.head_bytes(shape, settings)
        twice = row["head_copies"] * head if sizes.shares_embedding(shape) else 0
        weights = ceil(sizes.weight_bytes(shape, settings) + twice)
        cache = kv_cache_bytes(shape, context, kv_bits(settings.kv))
        width = (
            shape.hidden + shape.intermediate + (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        )
        compute = ceil(row["compute_per_width"] * width * min(context, CHUNK))
        overhead = ceil(
            row["overhead"] + row["per_block"] * sizes.quantized_blocks(shape, settings)
        )
        return Footprint(
            weights,
            cache,
            compute,
            overhead,
            weights + overhead + ceil(row["loading_head_copies"] * head),
        )

    def _of_whole_texts(self, shape: Shape, settings: Settings, context: int) -> Footprint:
        """Of an embedder or a reranker: no cache, and a text as long as the context computed at
        once."""
        row = self.retrieval
        width = (
            shape.hidden + shape.intermediate + shape.head_dim * (shape.heads + 2 * shape.kv_heads)
        )
        pairs = shape.heads * context**2
        compute = context * width * row["per_width"] + pairs * row["per_pair_of_tokens"]
        overhead = row["overhead"]
        quantization = settings.quantization
        if quantization is not None and quantization.bits == 4:
            matrices = sizes.quantized_weights(shape) - shape.vocab * shape.hidden
            kept = (
                "per_narrow_block_with_zero_point"
                if quantization.zero_points
                else "per_narrow_block"
            )
            overhead += row[kept] * matrices / quantization.block
        weights = sizes.weight_bytes(shape, settings)
        if quantization is None:
            left = 1 - row["float_embedding_share"]
            weights -= floor(left * sizes.embedding_bytes(shape, settings))
        return Footprint(weights, 0, ceil(compute), ceil(overhead))

    def build_memory(self, shape: Shape, settings: Settings) -> int:
        """Peak resident bytes of the conversion."""
        kind = "float" if settings.quantization is None else settings.precision
        return ceil(self.build["base"] + self.build[f"{kind}_per_parameter"] * shape.parameters())


@cache
def costs() -> Costs:
    """The costs.toml beside this module. Raises PackError (exit code 6) naming the table that is
    missing or not known."""
    path = _FOLDER / "costs.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    wrong = {field.name for field in fields(Costs)} ^ set(table)
    if wrong:
        raise bad_input(f"{path}: the table {sorted(wrong)[0]!r} is missing or not known.")
    return msgspec.convert(table, Costs)
