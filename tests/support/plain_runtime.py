"""A runtime whose sizes are plain arithmetic, so that a test of the selection can state its figures
by hand.

It builds nothing: what selects must not depend on which engines exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from packager import catalog
from packager.catalog import Variant
from packager.device.target import Device, Target
from packager.errors import usage
from packager.need.workload import Workload, merge
from packager.predict.forecast import AS_RATED, Speed
from packager.predict.memory import Footprint, kv_bits, kv_cache_bytes
from packager.recipe import Recipe
from packager.runtime import BuildNeeds, Tools
from packager.select import Candidate, candidates
from packager.shape import Shape

GB = 10**9


class PlainRuntime:
    """Weights at whole bits per weight, an f16 cache unless asked otherwise, nothing else in
    memory."""

    extra = "plain"
    distributions: tuple[str, ...] = ()
    more_tools: tuple[Tools, ...] = ()
    build_job = "tests.support.plain_runtime:no_job"
    session = "tests.support.plain_runtime:NoSession"
    context_in_artifact = False

    def __init__(
        self,
        name: str = "plain",
        prefix: str = "plain",
        bits: Sequence[int] = (16, 8, 4, 2),
        dense_only: bool = True,
    ) -> None:
        self.name, self.prefix, self._bits, self._dense_only = name, prefix, tuple(bits), dense_only

    def recipes(self) -> tuple[Recipe, ...]:
        return tuple(
            Recipe(
                self.name,
                self.prefix,
                f"b{bits}",
                "f16",
                16,
                f"{bits} bits",
                settings={"bits": bits},
            )
            for bits in self._bits
        )

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        for recipe in self.recipes():
            if recipe.weights == weights:
                return recipe if kv in (None, "f16") else recipe.with_kv(str(kv), kv_bits(str(kv)))
        raise usage(f"{self.name} has no recipe {weights!r}.")

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        return (
            None if shape.dense or not self._dense_only else f"{self.name} builds dense models only"
        )

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        return Tools(self.extra, self.distributions)

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        return shape.parameters() * int(recipe.settings["bits"]) // 8

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        return Footprint(
            self.artifact_bytes(shape, recipe), kv_cache_bytes(shape, context, recipe.kv_bits), 0, 0
        )

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        return shape.active_parameters() * int(recipe.settings["bits"]) // 8 + kv_cache_bytes(
            shape, context, recipe.kv_bits
        )

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        return AS_RATED

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        return BuildNeeds(0, self.artifact_bytes(shape, recipe))

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        return self.artifact_bytes(shape, recipe)

    def how_to_run(self, recipe: Recipe, workload: dict[str, Any]) -> str:
        return ""


def target(
    memory: float = 16 * GB,
    *,
    bandwidth: float = 40e9,
    compute: float = 400e9,
    storage: int | None = None,
    runtimes: tuple[str, ...] = ("plain",),
    recipes: tuple[str, ...] = (),
    name: str = "bench-device",
) -> Target:
    """A device with that much memory for the model and nothing reserved."""
    device = Device(int(memory), 0, None, "x86_64", 4, bandwidth, compute, storage, "same-class")
    return Target(name, "for tests", "laptop", device, runtimes, recipes, Workload(), "")


PLAIN = PlainRuntime()


def chat(**changes: Any) -> Workload:
    """The chat workload with some fields changed; no limit on rates unless asked for."""
    return replace(merge({}, None), **{"min_decode_tps": None, "max_ttft_ms": None, **changes})


def variants(*names: str) -> tuple[Variant, ...]:
    return tuple(catalog.find(name) for name in names)


def fit(
    device: Target,
    workload: Workload,
    *names: str,
    runtimes: Sequence[PlainRuntime] = (PLAIN,),
    **more: Any,
) -> tuple[Candidate, ...]:
    """Candidates among the named variants, or the whole catalogue; nothing counts as named by the
    user unless said."""
    pool = variants(*names) if names else catalog.load()
    return candidates(device, workload, pool, runtimes, **{"named": False, **more})
