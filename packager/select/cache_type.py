"""What if the key-value cache had another type: the runtimes as before, with every recipe in that
type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from packager.device.target import Target
from packager.errors import PackError, usage
from packager.parts import members
from packager.predict.forecast import Speed
from packager.predict.memory import KV_BITS, Footprint
from packager.predict.offload import Offloads, Split
from packager.recipe import Recipe, split_id
from packager.runtime import (
    AnswersSeveral,
    BuildNeeds,
    Drafts,
    HoldsBack,
    InstallsItself,
    RefusesDrafts,
    Retrieves,
    Runtime,
    Sees,
    Serves,
    Tools,
)
from packager.select.engine import candidates
from packager.shape import Shape

_BESIDES = (
    AnswersSeveral,
    Drafts,
    HoldsBack,
    InstallsItself,
    RefusesDrafts,
    Retrieves,
    Sees,
    Serves,
)


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
            "Choose another type, or the runtime's own.",
        )
    return able


def cache_types(target: Target, runtimes: Sequence[Runtime]) -> tuple[str, ...]:
    """The cache types that at least one of the runtimes keeps in a recipe for the target."""
    return tuple(kv for kv in KV_BITS if _served(target, runtimes, kv))


def _served(target: Target, runtimes: Sequence[Runtime], kv: str) -> bool:
    try:
        typed = with_cache_type(runtimes, kv)
        candidates(keeping(target, typed), target.workload, (), typed)
    except PackError:
        return False
    return True


def keeping(target: Target, runtimes: Sequence[Runtime]) -> Target:
    """The target with those of its own recipes that the runtimes build: some keep the cache as one
    type only."""
    by_prefix = {runtime.prefix: runtime for runtime in runtimes}
    kept = [
        one
        for one in target.recipes
        if _builds(by_prefix.get(split_id(one)[0]), *split_id(one)[1:])
    ]
    return replace(target, recipes=tuple(kept))


def _builds(runtime: Runtime | None, weights: str, kv: str | None) -> bool:
    return runtime is not None and _recipe(runtime, weights, kv) is not None


def _recipe(runtime: Runtime, weights: str, kv: str | None) -> Recipe | None:
    try:
        return runtime.recipe(weights, kv)
    except PackError:
        return None


def _knows(runtime: Runtime, kv: str) -> bool:
    return any(_recipe(runtime, recipe.weights, kv) is not None for recipe in runtime.recipes())


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
        # Late: sessions are for who asks for sound.
        from packager.hearing import Hears

        # What it can besides is known by the members of each part.
        for part in (*_BESIDES, Hears):
            for name in members(part):
                if hasattr(runtime, name):
                    setattr(self, name, getattr(runtime, name))

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe that can have the cache type, with it."""
        typed = (
            _recipe(self._runtime, recipe.weights, self._kv) for recipe in self._runtime.recipes()
        )
        return [recipe for recipe in typed if recipe is not None]

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
        self,
        shape: Shape,
        recipe: Recipe,
        context: int,
        filled: int,
        gpu_layers: int,
        gpus: int = 1,
    ) -> Split:
        """As the runtime says."""
        assert isinstance(self._runtime, Offloads)
        many = {"gpus": gpus} if gpus > 1 else {}
        return self._runtime.split(shape, recipe, context, filled, gpu_layers, **many)
