"""ONNX Runtime: weights quantized by the GenAI model builder, run by onnxruntime-genai. Importing
this imports no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packager.errors import usage
from packager.json_values import JsonObject, at_or_none
from packager.names import did_you_mean
from packager.need.usecases import use_case
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.recipe import ADAPTERS, Recipe, repacked_recipe
from packager.runtime import BuildNeeds, Ladder, Runtime, Tools
from packager.shape import Shape, as_qwen2
from targets.onnxruntime import data, obstacles, sizes, speed
from targets.onnxruntime.distributions import engine_distributions
from targets.onnxruntime.how_to_run import how_to_run

if TYPE_CHECKING:
    from packager.plan.adopted import Adopted
    from packager.records.contents import Minimum


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
    adapter_job = "targets.onnxruntime.adapter:build"
    adapter_file = "adapter.onnx_adapter"
    context_in_artifact = True

    def __init__(
        self, repack: bool = False, group: int | None = None, adapter_inputs: bool = False
    ) -> None:
        self._repack, self._group, self._adapter_inputs = repack, group, adapter_inputs
        # What is tried of an engine is made of a model of its own, which is not quantized.
        self.engine: OnnxRuntime = OnnxRuntime() if repack or adapter_inputs else self
        self.distributions: tuple[str, ...] = (
            *engine_distributions(),
            "onnx",
            "onnx-ir",
            "transformers",
            "torch",
        )

    def with_repack(self, group: int | None = None) -> OnnxRuntime:
        """An adapter whose recipes take over what a checkpoint stores in groups of 4 bits, `group`
        columns each where that is known."""
        return OnnxRuntime(repack=True, group=group)

    def held_back(self, recipe: Recipe, task: str) -> str | None:
        """See packager.runtime.HoldsBack."""
        return data.held_back(recipe, task)

    def ladder(self) -> Ladder:
        """See packager.runtime.Laddered."""
        return _ladder()

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """See packager.package.floor.HasFloor."""
        # Late, as the other readers of TOML that `fit` does without.
        from targets.onnxruntime import floor

        return floor.minimum(shape)

    def adopt(self, place: Path) -> Adopted | None:
        """See packager.plan.adopted.Adopts."""
        # Late: most builds adopt nothing, and an installation without this engine has no onnx.
        from packager.engines import missing_engine
        from packager.plan.converted import folder_of
        from packager.process import resolve

        folder = folder_of(place, "genai_config.json")
        if folder is None:
            return None
        try:
            # By its name: it stands on this adapter.
            model: Adopted = resolve("targets.onnxruntime.adopted:adopt")(folder)
        except ImportError as error:
            missing = missing_engine(cast("Runtime", self))
            if missing is None:
                raise
            raise missing from error
        return model

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe: those for the CPU, then the other execution providers; of each the best
        quality first."""
        return [self._carried(recipe) for recipe in data.recipes()]

    def with_adapter_inputs(self) -> OnnxRuntime:
        """An adapter whose recipes give the graph inputs for the matrices of an adapter."""
        return OnnxRuntime(adapter_inputs=True)

    def adapter_obstacle(self, settings: JsonObject, modality: str) -> str | None:
        """See packager.package.adapters.TakesSome."""
        if settings.get("adapter_inputs") is True:
            return None
        return "its graph has no inputs for one: build it with --adapter-inputs"

    def _carried(self, recipe: Recipe) -> Recipe:
        if self._repack:
            return repacked_recipe(recipe, self._group)
        if not self._adapter_inputs:
            return recipe
        summary = f"{recipe.summary}; inputs for adapters"
        return replace(recipe.added(ADAPTERS, adapter_inputs=True), summary=summary)

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
        return self._carried(listed)

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        settings = data.settings_of(recipe)
        if settings.adapter_inputs and (settings.provider != "cpu" or shape.task != "generate"):
            return "Inputs for adapters are built into text models for the CPU alone."
        return obstacles.of_shape(shape) or obstacles.of_recipe(shape, settings)

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

    def how_to_add(self, models: Sequence[str], adapter: str, workload: JsonObject) -> str:
        """See packager.package.adapters.Adapts."""
        return f"""With Python, `pip install onnxruntime-genai`:

```python
import onnxruntime_genai as og

model = og.Model("BASE/model")
tokenizer = og.Tokenizer(model)
adapters = og.Adapters(model)
adapters.load("{adapter}", "adapter")
options = og.GeneratorParams(model)
options.set_search_options(max_length=512)
generator = og.Generator(model, options)
generator.set_active_adapter(adapters, "adapter")
chat = '[{{"role": "user", "content": "What is the capital of France?"}}]'
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
generator.append_tokens(tokenizer.encode(prompt))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
```"""


@cache
def _ladder() -> Ladder:
    from packager.engine_check.ladder import read

    ladder = read(Path(__file__).with_name("ladder.toml"))
    return replace(ladder, distributions=engine_distributions())
