"""What if the key-value cache had another type: the runtimes as before, with every recipe in that
type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packager.errors import PackError, usage
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.predict.offload import Offloads, Split
from packager.recipe import Recipe
from packager.runtime import BuildNeeds, InstallsItself, Runtime, Tools
from packager.shape import Shape


def with_cache_type(runtimes: Sequence[Runtime], kv: str) -> tuple[Runtime, ...]:
    """The runtimes that know the cache type, each offering its recipes in it. Raises PackError
    (usage) where none does."""
    able = tuple(
        (_Splitting if isinstance(runtime, Offloads) else _WithCacheType)(runtime, kv)
        for runtime in runtimes
        if _knows(runtime, kv)
    )
    if not able:
        raise usage(
            f"None of the runtimes keeps its cache as {kv}.",
            "Take another type, or the runtime's own.",
        )
    return able


def _knows(runtime: Runtime, kv: str) -> bool:
    try:
        return bool([runtime.recipe(recipe.weights, kv) for recipe in runtime.recipes()[:1]])
    except PackError:
        return False


class _WithCacheType:
    """One runtime, seen through a cache type; everything but its recipes is its own."""

    def __init__(self, runtime: Runtime, kv: str) -> None:
        self._runtime, self._kv = runtime, kv
        self.name, self.prefix, self.extra = runtime.name, runtime.prefix, runtime.extra
        self.distributions, self.build_job, self.session = (
            runtime.distributions,
            runtime.build_job,
            runtime.session,
        )
        self.context_in_artifact, self.more_tools = runtime.context_in_artifact, runtime.more_tools
        self.install = runtime.install if isinstance(runtime, InstallsItself) else ""

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the cache type."""
        return [
            self._runtime.recipe(recipe.weights, self._kv) for recipe in self._runtime.recipes()
        ]

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """A type that is named in the recipe itself stays."""
        return self._runtime.recipe(weights, kv or self._kv)

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """As the runtime says."""
        return self._runtime.obstacle(shape, recipe)

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """As the runtime says."""
        return self._runtime.tools(shape, recipe)

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """As the runtime says."""
        return self._runtime.artifact_bytes(shape, recipe)

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """As the runtime says."""
        return self._runtime.footprint(shape, recipe, context)

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """As the runtime says."""
        return self._runtime.decode_bytes(shape, recipe, context)

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """As the runtime says."""
        return self._runtime.speed(shape, recipe, isa)

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """As the runtime says."""
        return self._runtime.build_needs(shape, recipe)

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """As the runtime says."""
        return self._runtime.least_file_bytes(shape, recipe)

    def how_to_run(self, recipe: Recipe, workload: Mapping[str, Any]) -> str:
        """As the runtime says."""
        return self._runtime.how_to_run(recipe, dict(workload))


class _Splitting(_WithCacheType):
    """The same of a runtime that can keep a part of a model on a GPU."""

    def split(
        self, shape: Shape, recipe: Recipe, context: int, filled: int, gpu_layers: int
    ) -> Split:
        """As the runtime says."""
        assert isinstance(self._runtime, Offloads)
        return self._runtime.split(shape, recipe, context, filled, gpu_layers)
