"""The ways that a target allows: its runtimes, each with its recipes, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from packager.catalog import find
from packager.device.target import Target
from packager.errors import PackError, usage
from packager.names import did_you_mean
from packager.recipe import Recipe, split_id
from packager.runtime import HoldsBack, Runtime
from packager.select import device_rules

_FINE_BITS = 4.0
_REFERENCE = "Qwen3-32B"
"""A dense variant whose embedding and odd rows, which recipes keep in more bits, weigh little: what
a recipe spends shows there."""


@dataclass(frozen=True, slots=True)
class Way:
    """A runtime with one of its recipes, and its place in the target's preference; `order` is its
    place among the runtime's own recipes, which go from the best quality down. `note` says why it
    stands first where a measurement put it there, and `held` why it stands behind all others where
    its runtime says so; `id` is that of the recipe, made once."""

    runtime: Runtime
    recipe: Recipe
    rank: tuple[int, int]
    coarse: bool
    order: int = 0
    note: str | None = None
    held: str | None = None
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.recipe.id)


def ways_of(
    target: Target, runtimes: tuple[Runtime, ...], wanted: str | None, task: str = "generate"
) -> list[Way]:
    """The ways a target allows for a task: its runtimes in order, of each the target's own recipes
    first, but for those that the runtime holds back."""
    by_name = {runtime.name: runtime for runtime in runtimes}
    served = [by_name[name] for name in target.runtimes if name in by_name]
    if not served:
        raise usage(
            f"No runtime of {target.name} is installed: it is served by "
            f"{', '.join(target.runtimes)}."
        )
    if wanted is not None:
        prefix, weights, kv = split_id(wanted)
        chosen = _by_prefix(prefix, served, runtimes, target)
        asked = chosen.recipe(weights, kv)
        held = _held(chosen, asked, task)
        return [Way(chosen, asked, (0, 0), _coarse(chosen, asked), held=held)]
    ways = []
    for place, runtime in enumerate(served):
        named = [split_id(name) for name in target.recipes]
        why = {}
        if not any(prefix == runtime.prefix for prefix, _, _ in named):
            why = {row.recipe: row.why for row in target.tuned if row.runtime == runtime.name}
            named = [split_id(name) for name in why]
        own = [
            _own(target, runtime, weights, kv)
            for prefix, weights, kv in named
            if prefix == runtime.prefix
        ]
        ids = {recipe.id for recipe in own}
        # A runtime with several execution providers offers those of the target's own recipes, or
        # the device's best one.
        chosen_by = {recipe.provider for recipe in own} or set(
            device_rules.providers(target.device)[:1]
        )
        others = [
            recipe
            for recipe in runtime.recipes()
            if recipe.id not in ids and recipe.provider in (None, *chosen_by)
        ]
        ranked = [*enumerate(own), *((len(own), recipe) for recipe in others)]
        by_quality = {recipe.weights: order for order, recipe in enumerate(runtime.recipes())}
        back = {recipe.id: _held(runtime, recipe, task) for _, recipe in ranked}
        found = [
            Way(
                runtime,
                recipe,
                (place, len(own) if back[recipe.id] else order),
                _coarse(runtime, recipe),
                by_quality.get(recipe.weights, len(by_quality)),
                why.get(recipe.id),
                back[recipe.id],
            )
            for order, recipe in ranked
        ]
        ways += sorted(found, key=lambda way: way.rank)
    return ways


def _held(runtime: Runtime, recipe: Recipe, task: str) -> str | None:
    try:
        return runtime.held_back(recipe, task) if isinstance(runtime, HoldsBack) else None
    except PackError as error:
        # What a runtime fails to say of one recipe is no reason to say nothing about the others.
        return error.message


def _coarse(runtime: Runtime, recipe: Recipe) -> bool:
    """Whether the recipe spends less than 4 bits on a weight; unknown, and so not, where the
    runtime cannot build the reference."""
    if recipe.grade is not None and float(recipe.grade.partition("-")[0]) < _FINE_BITS:
        # A large embedding in more bits lifts the average of a small model above what its layers
        # have.
        return True
    shape = find(_REFERENCE).shape
    if shape is None:
        return False
    try:
        if runtime.obstacle(shape, recipe) is not None:
            return False
        return 8 * runtime.artifact_bytes(shape, recipe) / shape.parameters() < _FINE_BITS
    except PackError:
        return False


def _own(target: Target, runtime: Runtime, weights: str, kv: str | None) -> Recipe:
    try:
        return runtime.recipe(weights, kv)
    except PackError as error:
        raise usage(
            f"The target {target.name} lists a recipe that is not there. {error.message}",
            error.hint,
        ) from None


def _by_prefix(
    prefix: str, served: Sequence[Runtime], known: Sequence[Runtime], target: Target
) -> Runtime:
    for runtime in served:
        if runtime.prefix == prefix:
            return runtime
    prefixes = [runtime.prefix for runtime in served]
    if prefix in (runtime.prefix for runtime in known):
        raise usage(
            f"{target.name} is not served by {prefix!r}.",
            f"Recipes for it begin with {' or '.join(prefixes)}.",
        )
    raise usage(
        f"There is no runtime with recipes called {prefix!r}.{did_you_mean(prefix, prefixes)}",
        f"Here: {', '.join(prefixes)}.",
    )
