"""From a workload and a target to every candidate with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from packager.catalog import find
from packager.device.target import Target
from packager.errors import PackError, usage
from packager.names import did_you_mean
from packager.need import languages
from packager.need.usecases import UseCase, use_case
from packager.need.workload import Workload
from packager.predict.forecast import AS_RATED, NO_EXTRA, Forecast, Speed, predict_on
from packager.predict.memory import Footprint
from packager.predict.offload import Offloads, Split, best_split, host_seconds, splits
from packager.recipe import Recipe, split_id
from packager.runtime import Retrieves, Runtime, Sees
from packager.select import rules
from packager.select.candidate import Candidate, Reason, Verdict
from packager.select.preference import ordered, recipe_order
from packager.select.stand_ins import published, stand_in
from packager.shape import Shape

if TYPE_CHECKING:
    from packager.catalog import Variant

_NOTHING = Footprint(0, 0, 0, 0)
_FINE_BITS = 4.0
_ROOMY = 0.9
"""Share of the memory up to which a model leaves room: for what else runs, and for a longer
talk."""
_REFERENCE = "Qwen3-32B"
"""A dense variant whose embedding and odd rows, which recipes keep in more bits, weigh little: what
a recipe spends shows there."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A runtime with one of its recipes, and its place in the target's preference."""

    runtime: Runtime
    recipe: Recipe
    rank: tuple[int, int]
    coarse: bool


@dataclass(frozen=True, slots=True)
class _Size:
    """What a shape takes in one way, or the obstacle; it depends on the context but on no limit."""

    obstacle: str | None
    artifact: int = 0
    footprint: Footprint = _NOTHING
    decode_bytes: int = 0
    speed: Speed = AS_RATED
    split: Split | None = None
    least_file: int = 0


def candidates(
    target: Target,
    workload: Workload,
    variants: Iterable[Variant],
    runtimes: Iterable[Runtime],
    *,
    recipe: str | None = None,
    available_bytes: int | None = None,
    named: bool | None = None,
    every: bool = False,
) -> tuple[Candidate, ...]:
    """Every variant in every recipe of the target's runtimes, best first, with the chosen one
    marked.

    A variant that fails for itself (licence, modality, score) stands once, in the target's
    preferred recipe, and one that a runtime does not build in any recipe once for that runtime.
    Where the smallest is preferred, a variant is measured runtime by runtime, the target's own
    recipes before the others, until something passes; the rest could not be chosen and is left out,
    unless `every` asks for it. `recipe` allows only that one; `available_bytes` takes the place of
    the device's memory less its reserve. `named` says that the user named the variant: its scores
    and tuning then turn into notes; None means "where only one variant is given". Raises PackError
    (usage) for an unknown recipe, or one the target does not serve.
    """
    case = use_case(workload.use_case)
    given = tuple(variants)
    named = len(given) == 1 if named is None else named
    # What gives text is no answer to who wants vectors, nor the other way, unless it is named.
    pool = tuple(
        _for_need(variant, case.task, workload)
        for variant in given
        if named or rules.task_of(variant) == case.task
    )
    ways = _ways(target, tuple(runtimes), recipe)
    if not ways:
        raise usage(f"No recipe of the runtimes of {target.name} is for what it runs models on.")
    judge = _Judge(target, workload, case, available_bytes, named)
    groups = [list(group) for _, group in groupby(ways, key=lambda way: way.rank)]
    lazy = workload.prefer == "smallest" and not every
    found = [candidate for variant in pool for candidate in judge.all_of(variant, groups, lazy)]
    passing = ordered([candidate for candidate in found if candidate.passes], workload.prefer)
    if passing:
        passing[0] = replace(passing[0], verdict="chosen")
    return (
        *passing,
        *sorted((candidate for candidate in found if not candidate.passes), key=_nearness),
    )


def _for_need(variant: Variant, task: str, workload: Workload) -> Variant:
    """The variant as it is built: with the end that the task takes, and with its vision tower
    where pictures come in."""
    shape = variant.shape
    if shape is None:
        return variant
    if shape.task != task:
        shape = shape.for_task(task)
    if workload.pictures and variant.tower is not None:
        shape = shape.seeing(variant.tower, workload.max_image_tokens or 0)
    return variant if shape is variant.shape else replace(variant, shape=shape)


def choose(found: Sequence[Candidate]) -> Candidate | None:
    """The chosen one of `candidates`, None where nothing fits."""
    return found[0] if found and found[0].verdict == "chosen" else None


def _nearness(candidate: Candidate) -> tuple[object, ...]:
    """Rejected ones: those that can be built first, of them those with the fewest failed rules,
    then the smaller variant."""
    return (
        not candidate.sized,
        len(candidate.reasons),
        candidate.variant.params_total or 0,
        candidate.rank[0],
        *recipe_order(candidate),
        candidate.variant.repo_id,
    )


def _ways(target: Target, runtimes: tuple[Runtime, ...], wanted: str | None) -> list[_Way]:
    """The ways a target allows: its runtimes in order, of each its own recipes first."""
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
        found = chosen.recipe(weights, kv)
        return [_Way(chosen, found, (0, 0), _coarse(chosen, found))]
    ways = []
    for place, runtime in enumerate(served):
        own = [
            _own(target, runtime, weights, kv)
            for prefix, weights, kv in map(split_id, target.recipes)
            if prefix == runtime.prefix
        ]
        ids = {recipe.id for recipe in own}
        # A runtime with several execution providers offers those of the target's own recipes, or
        # the device's best one.
        chosen_by = {recipe.provider for recipe in own} or set(rules.providers(target.device)[:1])
        others = [
            recipe
            for recipe in runtime.recipes()
            if recipe.id not in ids and recipe.provider in (None, *chosen_by)
        ]
        ranked = [*enumerate(own), *((len(own), recipe) for recipe in others)]
        ways += [
            _Way(runtime, recipe, (place, order), _coarse(runtime, recipe))
            for order, recipe in ranked
        ]
    return ways


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


class _Judge:
    """Measures variants against one workload on one target; remembers sizes, which many variants
    share."""

    def __init__(
        self, target: Target, workload: Workload, case: UseCase, available: int | None, named: bool
    ) -> None:
        self._target, self._workload, self._case, self._named = target, workload, case, named
        self._available = target.device.available_bytes if available is None else available
        self._sizes: dict[tuple[int, str], _Size] = {}
        self._forecasts: dict[tuple[int, str], Forecast] = {}
        self._shapes: dict[Shape, int] = {}
        self._numbers: dict[int, tuple[Shape, int]] = {}

    def all_of(
        self, variant: Variant, groups: Sequence[Sequence[_Way]], lazy: bool
    ) -> list[Candidate]:
        """The candidates of one variant, group by group of ways; `lazy` stops after the first group
        in which one passes."""
        reasons, notes = (
            [],
            list(rules.notes(variant, self._workload, self._case, self._target.device)),
        )
        for reason in rules.of_variant(variant, self._workload, self._case):
            # A licence list is the user's own word; without one, naming a variant is consent to its
            # licence.
            forgiven = reason.rule in rules.FORGIVEN_WHEN_NAMED or (
                reason.rule == "licence" and not self._workload.licenses
            )
            if self._named and forgiven:
                notes.append(f"Accepted because it was named: {reason}.")
            else:
                reasons.append(reason)
        shown = {
            name: published(variant, name, self._case.modes) for name in self._shown_scores(variant)
        }
        scores = {name: value for name, value in shown.items() if value is not None}
        quality, stood_in = self._quality(variant, scores)
        notes += stood_in
        if reasons:
            every = [way for group in groups for way in group]
            groups = [
                [
                    next(
                        (way for way in every if self._size_of(variant, way).obstacle is None),
                        every[0],
                    )
                ]
            ]
        found: list[Candidate] = []
        said: set[tuple[str, str]] = set()
        for group in groups:
            for way in group:
                # What keeps a runtime from building a variant at all is said once, not for each of
                # its recipes.
                obstacle = self._size_of(variant, way).obstacle
                if obstacle is None or (way.runtime.name, obstacle) not in said:
                    found.append(
                        self._one(variant, way, tuple(reasons), tuple(notes), scores, quality)
                    )
                if obstacle is not None:
                    said.add((way.runtime.name, obstacle))
            if lazy and any(candidate.sure for candidate in found):
                break
        return found

    def _shown_scores(self, variant: Variant) -> list[str]:
        named = [name for floor in self._case.floors for name, _ in floor.any_of]
        # Of the tests of a language only the one that decides: the others say the same in other
        # words.
        for floor in filter(None, map(languages.floor, self._workload.languages)):
            named += [
                name
                for name, _ in floor.any_of
                if published(variant, name, self._case.modes) is not None
            ][:1]
        return list(dict.fromkeys((*named, *self._case.quality, *self._workload.min_scores)))

    def _quality(
        self, variant: Variant, scores: dict[str, float]
    ) -> tuple[float | None, list[str]]:
        """The mean of the use case's benchmarks, and what is to be said of those that are not
        published; None without any."""
        values, said = [], []
        for name in self._case.quality:
            instead = None if name in scores else stand_in(variant, name, self._case.modes)
            if name in scores:
                values.append(scores[name])
            elif instead is not None:
                values.append(instead.value)
                said.append(instead.why)
        if not values or len(values) < len(self._case.quality):
            return None, []
        return round(sum(values) / len(values), 2), said

    def _size_of(self, variant: Variant, way: _Way) -> _Size:
        if variant.unbuildable is not None:
            nearest = (
                f"; the nearest that can be built is {variant.nearest}" if variant.nearest else ""
            )
            return _Size(f"{variant.unbuildable}{nearest}")
        if variant.shape is None:
            return _Size("no source states its shape")
        shape = variant.shape
        key = (self._number(shape), way.recipe.id)
        if key not in self._sizes:
            self._sizes[key] = self._measure(shape, way)
        return self._sizes[key]

    def _number(self, shape: Shape) -> int:
        """The same for equal shapes; an object that is met again is not hashed again, which its
        many fields make slow."""
        known = self._numbers.get(id(shape))
        if known is None:
            known = self._numbers[id(shape)] = (
                shape,
                self._shapes.setdefault(shape, len(self._shapes)),
            )
        return known[1]

    def _measure(self, shape: Shape, way: _Way) -> _Size:
        try:
            return self._measured(shape, way)
        except PackError as error:
            # What one recipe cannot be sized for is no reason to say nothing about the others.
            return _Size(error.message)

    def _measured(self, shape: Shape, way: _Way) -> _Size:
        runtime, recipe = way.runtime, way.recipe
        obstacle = runtime.obstacle(shape, recipe)
        if obstacle is None and shape.task != "generate" and not isinstance(runtime, Retrieves):
            obstacle = f"{runtime.name} is built for text here, not for vectors and scores"
        if obstacle is None and shape.vision is not None and not isinstance(runtime, Sees):
            obstacle = f"{runtime.name} builds the text decoder alone here, and no vision tower"
        if obstacle is not None:
            return _Size(obstacle)
        context, prompt = self._workload.context, self._workload.prompt
        # The rate is that at the beginning of an answer: the typical prompt is in the cache, as the
        # benchmark measures it.
        filled = min(prompt, context)
        device, artifact = self._target.device, runtime.artifact_bytes(shape, recipe)
        least_file = (
            0 if self._workload.max_file_bytes is None else runtime.least_file_bytes(shape, recipe)
        )
        speed = runtime.speed(shape, recipe, device.computes_with)
        if splits(device) and isinstance(runtime, Offloads):
            split = best_split(
                runtime,
                shape,
                recipe,
                context,
                filled,
                device,
                rules.room(self._workload, self._available),
            )
            return _Size(None, artifact, split.device, split.device_read, speed, split, least_file)
        footprint = runtime.footprint(shape, recipe, context)
        return _Size(
            None,
            artifact,
            footprint,
            runtime.decode_bytes(shape, recipe, filled),
            speed,
            None,
            least_file,
        )

    def _forecast(self, shape: Shape, size: _Size, way: _Way) -> Forecast:
        device = self._target.device
        key = (self._number(shape), way.recipe.id)
        if key not in self._forecasts:
            partial = size.split is not None and not size.split.whole
            extra = host_seconds(size.split, device) if size.split else NO_EXTRA
            # Two memories, two processors and the way between them: no figure of whole models says
            # how well they work together.
            confidence = "estimated" if partial else device.confidence
            self._forecasts[key] = predict_on(
                shape,
                size.decode_bytes,
                self._workload.prompt,
                device,
                size.speed,
                extra,
                confidence,
            )
        return self._forecasts[key]

    def _one(
        self,
        variant: Variant,
        way: _Way,
        reasons: tuple[Reason, ...],
        notes: tuple[str, ...],
        scores: dict[str, float],
        quality: float | None,
    ) -> Candidate:
        shape = variant.shape
        size = self._size_of(variant, way)
        device = self._target.device
        reasons = (
            *reasons,
            *rules.processor(way.runtime.name, device),
            *rules.unit(way.recipe, device),
        )
        forecast = Forecast(0, 0, 0, 0, 0, self._target.device.confidence)
        may_miss: tuple[Reason, ...] = ()
        bits = 0.0
        if shape is None or size.obstacle is not None:
            has = (size.obstacle or "").rstrip(".")
            reasons = (
                *reasons,
                Reason(
                    "runtime", f"a variant that {way.runtime.name} builds as {way.recipe.id}", has
                ),
            )
        else:
            forecast = rules.waiting(self._forecast(shape, size, way), variant, self._case)
            bits = 8 * size.artifact / shape.parameters()
            reasons = (
                *reasons,
                *rules.of_size(
                    size.footprint,
                    size.artifact,
                    self._target.device,
                    self._workload,
                    self._available,
                    size.split,
                ),
                *rules.file_size(size.least_file, self._workload, way.runtime.name),
                *rules.of_speed(forecast, self._workload),
            )
            may_miss = tuple(rules.may_miss(forecast, self._workload))
        verdict: Verdict = "may miss" if may_miss else "fits"
        return Candidate(
            variant=variant,
            runtime=way.runtime.name,
            recipe=way.recipe,
            context=self._workload.context,
            verdict="rejected" if reasons else verdict,
            reasons=reasons,
            footprint=size.footprint,
            artifact_bytes=size.artifact,
            forecast=forecast,
            scores=scores,
            quality=quality,
            bits_per_weight=bits,
            coarse=way.coarse,
            sized=size.obstacle is None,
            notes=notes,
            rank=way.rank,
            split=size.split,
            may_miss=may_miss,
            crowded=self._crowded(size),
        )

    def _crowded(self, size: _Size) -> bool:
        if size.split is not None and not size.split.whole:
            return True
        return size.footprint.peak > _ROOMY * rules.room(self._workload, self._available)
