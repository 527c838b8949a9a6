"""llama.cpp: GGUF written in one pass from safetensors, run by llama-cpp-python. Importing this
imports no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packager.errors import PackError, usage
from packager.json_values import JsonObject, at, object_or_empty
from packager.names import did_you_mean
from packager.plan.additions import Additions
from packager.predict.forecast import Speed
from packager.predict.memory import Drafting, Footprint, kv_cache_bytes
from packager.predict.offload import Split
from packager.recipe import REPACK, Recipe, repacked_recipe
from packager.remembered import last_answer
from packager.runtime import BuildNeeds, Ladder, Tools
from packager.shape import Shape
from packager.shape.heads import LAYERS as DRAFT_LAYERS
from packager.shape.names import TEXT_TYPES
from targets.gguf import layers, sizes
from targets.gguf.presets import (
    DEFAULT_KV,
    KV_BITS,
    PRESETS,
    PROJECTOR,
    ROOM,
    Preset,
    preset_of,
    projector_type,
)
from targets.llama_cpp import importance, memory, offload, speed

if TYPE_CHECKING:
    from packager.plan.adopted import Adopted
    from packager.records.contents import Minimum

REPACKED = "Q4_0"
"""What groups of 4 bits around 8 become, as most are published; others make blocks of Q4_1."""
_BLOCK = 32
"""The smallest block of a quantized type: rows that it does not divide stay in 16 bits."""


RETRIEVAL_TYPES = ("qwen3",)
"""Model types whose embedders and rerankers are built: llama.cpp's graph of the others has no head
for a reranker, and their published embedders look both ways."""


class LlamaCpp:
    """The adapter that the registry finds; see packager.runtime.Runtime."""

    name = "llama.cpp"
    prefix = "gguf"
    extra = "llama-cpp"
    distributions = ("llama-cpp-python", "gguf", "numpy")
    more_tools = ()
    build_job = "targets.llama_cpp.build:build"
    session = "targets.llama_cpp.session:Session"
    retrieval_session = "targets.llama_cpp.retrieval:Session"
    projector = PROJECTOR
    vision_session = "targets.llama_cpp.vision:VisionSession"
    pictures_on = ("cpu", "gpu")
    image_limit_in_artifact = False
    audio_session = "targets.llama_cpp.audio:AudioSession"
    adapter_job = "targets.gguf.adapter:build"
    adapter_file = "adapter.gguf"
    serving_engine = "targets.llama_cpp.serving:Engine"
    context_in_artifact = False
    answers_at_once = True
    warm_start: Literal["file", "process"] = "file"
    drafts = ("lookup", "draft", "mtp")

    def __init__(self, additions: Additions | None = None) -> None:
        self.additions = additions or Additions()
        # What is tried of an engine is made of a model of its own, which takes no additions.
        self.engine: LlamaCpp = LlamaCpp() if self.additions else self

    def with_additions(self, additions: Additions) -> LlamaCpp:
        """An adapter whose recipes carry them. Raises PackError: usage for a pattern or type that
        cannot be, bad input for a bad file."""
        return LlamaCpp(importance.checked(additions))

    def with_repack(self, group: int | None = None) -> LlamaCpp:
        """An adapter whose recipes take over what a checkpoint stores in groups of 4 bits; blocks
        have their own size, whatever the `group`."""
        return LlamaCpp(Additions(repack=True, group=group))

    def ladder(self) -> Ladder:
        """See packager.runtime.Laddered."""
        return _ladder()

    def minimum(
        self, artifact: Path, shape: Shape, recipe: Recipe, facts: JsonObject
    ) -> tuple[Minimum, ...]:
        """See packager.package.floor.HasFloor."""
        # Late, as the other readers of TOML that `fit` does without.
        from targets.llama_cpp import floor

        return floor.minimum(shape, recipe, facts)

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the default cache type, best quality first; those that need an
        importance matrix say so as an obstacle."""
        return [self._recipe(preset) for preset in PRESETS.values()]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the
        nearest."""
        recipe = self._recipe(preset_of(weights))
        if kv is None or kv == DEFAULT_KV:
            return recipe
        if kv not in KV_BITS:
            raise usage(
                f"llama.cpp has no cache type {kv!r}.{did_you_mean(kv, KV_BITS)}",
                f"Known: {', '.join(KV_BITS)}.",
            )
        return recipe.with_kv(kv, KV_BITS[kv])

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        if shape.model_type not in TEXT_TYPES:
            return (
                "The llama.cpp adapter builds text decoders of these types: "
                f"{', '.join(TEXT_TYPES)}; this one is {shape.model_type!r}."
            )
        if shape.task != "generate" and shape.model_type not in RETRIEVAL_TYPES:
            return (
                "llama.cpp makes vectors and scores of these types: "
                f"{', '.join(RETRIEVAL_TYPES)}; this one is {shape.model_type!r}."
            )
        preset = preset_of(recipe.weights)
        if preset.imatrix and self.additions.repack:
            return f"{preset.name} needs an importance matrix, which is not added to --repack."
        if preset.imatrix and not _weighed(recipe):
            return (
                "This recipe needs an importance matrix: give one with --imatrix, or a text to "
                "collect it from with --calibration."
            )
        if preset.name not in ("F16", "BF16") and (
            shape.hidden % _BLOCK or shape.intermediate % _BLOCK
        ):
            return (
                f"{preset.name} keeps blocks of {_BLOCK}, which do not divide the rows of this "
                "shape."
            )
        if recipe.kv != DEFAULT_KV and shape.head_dim % _BLOCK:
            return (
                f"A {recipe.kv} cache keeps blocks of {_BLOCK}, which do not divide the head "
                f"width {shape.head_dim}."
            )
        if recipe.settings.get("tensor_types"):
            try:
                self._sizes(shape, recipe)
            except PackError as error:
                return error.message
        return None

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """One set for every shape."""
        return Tools(self.extra, self.distributions)

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The weights and the keys to the byte; the vocabulary as dense as Qwen's."""
        stored = self._sizes(shape, recipe)
        text = stored.data + stored.table + sizes.vocabulary_bytes(shape) + ROOM
        return text + projector_bytes(shape, recipe)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes with the whole context answered."""
        return memory.footprint(shape, recipe, self._sizes(shape, recipe), context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Weights of one token, and the cache once."""
        weights = self._sizes(shape, recipe).read_per_token(shape)
        return weights + kv_cache_bytes(shape, context, recipe.kv_bits)

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """By the types of the tensors that a token reads."""
        return speed.speed(shape, self._layers(shape, recipe), isa)

    def split(
        self,
        shape: Shape,
        recipe: Recipe,
        context: int,
        filled: int,
        gpu_layers: int,
        gpus: int = 1,
    ) -> Split:
        """See packager.predict.offload.Offloads."""
        by_layer = self._layers(shape, recipe)
        return offload.split(shape, recipe, by_layer, context, filled, gpu_layers, gpus)

    def adopt(self, place: Path) -> Adopted | None:
        """See packager.plan.adopted.Adopts."""
        # Late: most builds adopt nothing, and an installation without this engine has no gguf.
        from packager.process import resolve
        from targets.gguf import library
        from targets.gguf.given import place_in

        path = place_in(place)
        if path is None:
            return None
        try:
            # By its name: it stands on this adapter.
            found: Adopted = resolve("targets.llama_cpp.adopted:adopt")(path)
        except ImportError as error:
            raise library.missing() from error
        return found

    def _sizes(self, shape: Shape, recipe: Recipe) -> sizes.Sizes:
        return _sizes(shape, recipe)

    def _layers(self, shape: Shape, recipe: Recipe) -> layers.Layers:
        # Of the layers that every token goes through; heads draft beside them.
        preset = preset_of(recipe.weights)
        stored = self._sizes(shape.drafting(0), recipe)
        if not _repacked(recipe):
            return layers.of(shape, preset, stored)
        body, ends = (
            layers.of(shape, kind, sizes.of(shape.decoder, kind))
            for kind in (PRESETS[REPACKED], preset)
        )
        return body._replace(embedding=ends.embedding, output=ends.output)

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """A streaming pass: a few megabytes per thread, and the result itself; to collect
        importances, the model in 8 bits before that."""
        needs = BuildNeeds(
            memory.constants().build["memory_bytes"], self.artifact_bytes(shape, recipe)
        )
        if "calibration" not in recipe.settings:
            return needs
        model = LlamaCpp().recipe(importance.CALIBRATED_AS)
        running = self.footprint(shape, model, importance.CHUNK_TOKENS).total
        return BuildNeeds(
            max(needs.memory, running), needs.disk + self.artifact_bytes(shape, model)
        )

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The smallest limit that files can be kept below, about: a tensor is never split, and the
        first file has the vocabulary."""
        text = (
            sizes.largest_tensor(shape, self._sizes(shape, recipe))
            + sizes.vocabulary_bytes(shape)
            + ROOM
        )
        # The engine opens a tower in one file alone.
        return max(text, projector_bytes(shape, recipe))

    def drafting(self, shape: Shape, recipe: Recipe, context: int, how: str) -> Drafting:
        """See packager.runtime.Drafts."""
        whole = shape.drafting(DRAFT_LAYERS if how == "mtp" else 0)
        return memory.drafting(shape, recipe, self._sizes(whole, recipe), context, how)

    def how_to_run(self, recipe: Recipe, workload: JsonObject) -> str:
        """Markdown with commands that need llama.cpp, Ollama or llama-cpp-python alone."""
        # Late: it brings the reader of checkpoints, which `fit` does without.
        from targets.llama_cpp import how_to_run

        return how_to_run.how_to_run(recipe, workload)

    def how_to_add(self, models: Sequence[str], adapter: str, workload: JsonObject) -> str:
        """See packager.package.adapters.Adapts."""
        from targets.llama_cpp import how_to_run

        return how_to_run.how_to_add(models[0], adapter, workload)

    def _recipe(self, preset: Preset) -> Recipe:
        recipe = Recipe(
            *("llama.cpp", "gguf", preset.name, DEFAULT_KV, KV_BITS[DEFAULT_KV], preset.summary),
            settings={"file_type": preset.file_type},
            grade=preset.grade,
        )
        if self.additions.repack:
            return repacked_recipe(recipe, self.additions.group)
        return importance.carried(recipe, self.additions) if self.additions else recipe


@cache
def _ladder() -> Ladder:
    from packager.engine_check import compiler
    from packager.engine_check.ladder import read

    ladder = read(Path(__file__).with_name("ladder.toml"))
    if compiler.holds_copy(compiler.installed().with_name("libllama.so")):
        # Its compiler would copy the C++ library into each library again.
        flags = " ".join(compiler.LINK_FLAGS)
        return replace(ladder, reinstall=f'LDFLAGS="{flags}" {ladder.reinstall}')
    return ladder


def _weighed(recipe: Recipe) -> bool:
    """Whether the recipe carries an importance matrix, or the text for one."""
    return "imatrix" in recipe.settings or "calibration" in recipe.settings


def _repacked(recipe: Recipe) -> bool:
    return recipe.settings.get(REPACK) is True


def _tensor_types(settings: JsonObject) -> dict[str, str]:
    """The types that the user gave to single tensors, by pattern; their order counts."""
    types = object_or_empty(settings, "tensor_types")
    return {pattern: at(types, pattern, str) for pattern in types}


def projector_bytes(shape: Shape, recipe: Recipe) -> int:
    """Bytes of the file of the vision tower or the audio encoder; 0 for text alone."""
    found = shape.vision or shape.audio
    if found is None:
        return 0
    # Late: most models take text alone.
    from targets.gguf import tower

    return tower.file_bytes(found, projector_type(recipe.weights), ROOM)


@last_answer
def _sizes(shape: Shape, recipe: Recipe) -> sizes.Sizes:
    """Of the text decoder, with the heads that are built with it."""
    text = shape.without_towers
    stored = sizes.of(
        text,
        preset_of(recipe.weights),
        _weighed(recipe),
        tuple(_tensor_types(recipe.settings).items()),
    )
    if not _repacked(recipe):
        return stored
    layers_of = sizes.of(text, PRESETS[REPACKED])
    return stored._replace(rest=layers_of.rest, experts=layers_of.experts, heads=layers_of.heads)
