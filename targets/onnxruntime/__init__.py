"""ONNX Runtime: weights quantized by the GenAI model builder, run by onnxruntime-genai. Importing
this imports no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from packager.engine_check.ladder import read
from packager.errors import usage
from packager.json_values import JsonObject, at_or_none
from packager.names import did_you_mean
from packager.need.usecases import use_case
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.recipe import Recipe
from packager.records.contents import Minimum
from packager.runtime import BuildNeeds, Ladder, Tools
from packager.shape import Shape, as_qwen2
from targets.onnxruntime import data, floor, obstacles, sizes, speed
from targets.onnxruntime.distributions import engine_distributions
from targets.onnxruntime.how_to_run import how_to_run


class OnnxRuntime:
    """The adapter that the registry finds; see packager.runtime.Runtime."""

    name = data.NAME
    prefix = data.PREFIX
    extra = "onnx"
    more_tools = ()
    no_drafts = "the graphs that are built for it give the logits of the last token alone"
    build_job = "targets.onnxruntime.convert:convert"
    session = "targets.onnxruntime.session:OnnxRuntimeSession"
    retrieval_session = "targets.onnxruntime.retrieval:Session"
    context_in_artifact = True

    def __init__(self) -> None:
        self.distributions: tuple[str, ...] = (
            *engine_distributions(),
            "onnx",
            "onnx-ir",
            "transformers",
            "torch",
        )

    def ladder(self) -> Ladder:
        """See packager.runtime.Laddered."""
        return _ladder()

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """See packager.package.floor.HasFloor."""
        return floor.minimum(shape)

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe: those for the CPU, then the other execution providers; of each the best
        quality first."""
        return data.recipes()

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the
        nearest."""
        known = {recipe.weights: recipe for recipe in data.recipes()}
        if weights not in known:
            raise usage(
                f"ONNX Runtime has no recipe {weights!r}.{did_you_mean(weights, known)}",
                f"Known: {', '.join(known)}.",
            )
        listed = known[weights]
        if kv not in (None, listed.kv):
            raise usage(
                f"ONNX Runtime keeps the cache of {weights!r} as {listed.kv}, not as {kv!r}.",
                "Leave the cache type out.",
            )
        return listed

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        return obstacles.of_shape(shape) or obstacles.of_recipe(shape, data.settings_of(recipe))

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """One set for every shape."""
        return Tools(self.extra, self.distributions)

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """Weights to the byte, the graph and the tokenizer within a few kilobytes."""
        shape, settings, costs = as_qwen2(shape), data.settings_of(recipe), data.costs()
        return (
            sizes.weight_bytes(shape, settings)
            + costs.graph_bytes(shape, settings)
            + costs.tokenizer_bytes(shape)
        )

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes with the whole context answered; the cache is allocated for all of it at
        once."""
        return data.costs().footprint(as_qwen2(shape), data.settings_of(recipe), context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Weights once and the cache once; nothing is decoded for a vector or a score."""
        cache = data.cache_bytes(shape, recipe, context) if shape.task == "generate" else 0
        return sizes.weights_read(shape, data.settings_of(recipe)) + cache

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """By the width of the weights."""
        return speed.speed(shape, recipe, isa)

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """The builder holds the checkpoint, the graph in full precision and the graph it writes at
        the same time."""
        # The checkpoint is linked into the work folder, copied where the cache is another disk, or
        # rewritten.
        disk = self.artifact_bytes(shape, recipe) + 2 * shape.parameters()
        return BuildNeeds(data.costs().build_memory(shape, data.settings_of(recipe)), disk)

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """All weights are one file."""
        return self.artifact_bytes(shape, recipe)

    def how_to_run(self, recipe: Recipe, workload: Mapping[str, Any]) -> str:
        """Markdown with commands that need onnxruntime-genai alone, or onnxruntime for vectors and
        scores."""
        task = use_case(at_or_none(workload, "use_case", str) or "chat").task
        if task != "generate":
            # Late: what a checkpoint says of its prompts is for a package's README alone.
            from targets.onnxruntime import how_to_retrieve

            return how_to_retrieve.how_to_run(workload, task)
        return how_to_run(data.settings_of(recipe).provider, workload)


@cache
def _ladder() -> Ladder:
    ladder = read(Path(__file__).with_name("ladder.toml"))
    return replace(ladder, distributions=engine_distributions())
