"""llama.cpp: GGUF written in one pass from safetensors, run by llama-cpp-python. Importing this imports no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packager.checkpoint.agreement import TEXT_TYPES
from packager.errors import usage
from packager.forecast import Speed
from packager.memory import Footprint, kv_cache_bytes
from packager.names import did_you_mean
from packager.offload import Split
from packager.recipe import Recipe
from packager.runtime import BuildNeeds, Tools
from packager.shape import Shape
from targets.llama_cpp import how_to_run, layers, memory, offload, sizes, speed
from targets.llama_cpp.presets import DEFAULT_KV, KV_BITS, PRESETS, Preset, preset_of

_BLOCK = 32
"""The smallest block of a quantized type: rows that it does not divide stay in 16 bits."""


class LlamaCpp:
    """The adapter that the registry finds; see packager.runtime.Runtime."""

    name = "llama.cpp"
    prefix = "gguf"
    extra = "llama-cpp"
    distributions = ("llama-cpp-python", "gguf", "numpy")
    more_tools = ()
    build_job = "targets.llama_cpp.build:build"
    session = "targets.llama_cpp.session:Session"
    context_in_artifact = False

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the default cache type, best quality first; those that need an importance matrix are left out."""
        return [_recipe(preset) for preset in PRESETS.values() if not preset.imatrix]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the nearest."""
        found = _recipe(preset_of(weights))
        if kv is None or kv == DEFAULT_KV:
            return found
        if kv not in KV_BITS:
            raise usage(f"llama.cpp has no cache type {kv!r}.{did_you_mean(kv, KV_BITS)}", f"Known: {', '.join(KV_BITS)}.")
        return found.with_kv(kv, KV_BITS[kv])

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""
        if shape.model_type not in TEXT_TYPES:
            return f"The llama.cpp adapter builds text decoders of these types: {', '.join(TEXT_TYPES)}; this one is {shape.model_type!r}."
        preset = preset_of(recipe.weights)
        if preset.imatrix:
            return f"{preset.name} needs an importance matrix."
        if preset.name not in ("F16", "BF16") and (shape.hidden % _BLOCK or shape.intermediate % _BLOCK):
            return f"{preset.name} keeps blocks of {_BLOCK}, which do not divide the rows of this shape."
        if recipe.kv != DEFAULT_KV and shape.head_dim % _BLOCK:
            return f"A {recipe.kv} cache keeps blocks of {_BLOCK}, which do not divide the head width {shape.head_dim}."
        return None

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """One set for every shape."""
        return Tools(self.extra, self.distributions)

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The weights to the byte; the header within the length of names and chat template."""
        found = sizes.of(shape, preset_of(recipe.weights))
        return found.data + found.table + sizes.vocabulary_bytes(shape)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes with the whole context answered."""
        return memory.footprint(shape, recipe, sizes.of(shape, preset_of(recipe.weights)), context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Weights of one token, and the cache once."""
        weights = sizes.of(shape, preset_of(recipe.weights)).read_per_token(shape)
        return weights + kv_cache_bytes(shape, context, recipe.kv_bits)

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """By the types of the tensors that a token reads."""
        return speed.speed(shape, self._layers(shape, recipe))

    def split(self, shape: Shape, recipe: Recipe, context: int, filled: int, gpu_layers: int) -> Split:
        """See packager.offload.Offloads."""
        return offload.split(shape, recipe, self._layers(shape, recipe), context, filled, gpu_layers)

    def _layers(self, shape: Shape, recipe: Recipe) -> layers.Layers:
        preset = preset_of(recipe.weights)
        return layers.of(shape, preset, sizes.of(shape, preset))

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """A streaming pass: a few megabytes per thread, and the result itself."""
        return BuildNeeds(memory.constants()["build"]["memory_bytes"], self.artifact_bytes(shape, recipe))

    def how_to_run(self, recipe: Recipe, workload: dict[str, Any]) -> str:
        """Markdown with commands that need llama.cpp, Ollama or llama-cpp-python alone."""
        return how_to_run.how_to_run(recipe, workload)


def _recipe(preset: Preset) -> Recipe:
    more: dict[str, Any] = {"settings": {"file_type": preset.file_type}, "grade": preset.grade}
    return Recipe("llama.cpp", "gguf", preset.name, DEFAULT_KV, KV_BITS[DEFAULT_KV], preset.summary, **more)
