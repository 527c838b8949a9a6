"""From a workload and a target to every candidate with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from packager.device.target import Target
from packager.errors import usage
from packager.need.usecases import UseCase, use_case
from packager.need.workload import Workload
from packager.predict.forecast import Forecast
from packager.runtime import Runtime
from packager.select import device_rules, rules, speed_rules
from packager.select.candidate import Alone, Candidate, Reason, Verdict
from packager.select.preference import ordered, recipe_order
from packager.select.sizing import Size, Sizes, sound_prompt
from packager.select.stand_ins import published, stand_in
from packager.select.ways import Way, ways_of

if TYPE_CHECKING:
    from packager.catalog import Variant
    from packager.need.floors import Floor


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
    recipes before the others, until something passes that does not come last; the rest could not be
    chosen and is left out, unless `every` asks for it. `recipe` allows only that one;
    `available_bytes` takes the place of the device's memory less its reserve. `named` says that the
    user named the variant: its scores and tuning then turn into notes; None means "where only one
    variant is given". Raises PackError (usage) for an unknown recipe, or one the target does not
    serve.
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
    ways = ways_of(target, tuple(runtimes), recipe, case.task)
    if not ways:
        raise usage(f"No recipe of the runtimes of {target.name} is for what it runs models on.")
    judge = _Judge(target, workload, case, available_bytes, named)
    groups = [list(group) for _, group in groupby(ways, key=lambda way: way.rank)]
    lazy = workload.prefer == "smallest" and not every
    judged = [candidate for variant in pool for candidate in judge.all_of(variant, groups, lazy)]
    passing = ordered([candidate for candidate in judged if candidate.passes], workload.prefer)
    if passing:
        passing[0] = replace(passing[0], verdict="chosen")
    return (
        *passing,
        *sorted((candidate for candidate in judged if not candidate.passes), key=_nearness),
    )


def _for_need(variant: Variant, task: str, workload: Workload) -> Variant:
    """The variant as it is built: with the end that the task takes, and with its vision tower
    or audio encoder where pictures or sound come in."""
    shape = variant.shape
    if shape is None:
        return variant
    if shape.task != task:
        shape = shape.for_task(task)
    if workload.pictures and variant.tower is not None:
        shape = shape.seeing(variant.tower, workload.max_image_tokens or 0)
    if workload.sound and variant.audio_tower is not None:
        shape = shape.hearing(variant.audio_tower, workload.max_audio_seconds or 0)
    return variant if shape is variant.shape else replace(variant, shape=shape)


def choose(judged: Sequence[Candidate]) -> Candidate | None:
    """The chosen one of `candidates`, None where nothing fits."""
    return judged[0] if judged and judged[0].verdict == "chosen" else None


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


def _floors_of(codes: Sequence[str]) -> list[Floor]:
    """The floors of the languages of a workload."""
    if not codes:
        return []
    # Late: their list is for who names a language alone.
    from packager.need import languages

    return list(filter(None, map(languages.floor, codes)))


class _Running(NamedTuple):
    """What one way to run a variant comes to on the device; the rules that it fails there."""

    reasons: tuple[Reason, ...]
    forecast: Forecast
    alone: Alone | None = None
    may_miss: tuple[Reason, ...] = ()
    bits_per_weight: float = 0.0
    machine_seconds: float = 0.0


class _Judge:
    """Measures variants against one workload on one target; remembers sizes, which many variants
    share."""

    def __init__(
        self, target: Target, workload: Workload, case: UseCase, available: int | None, named: bool
    ) -> None:
        self._target, self._workload, self._case, self._named = target, workload, case, named
        self._available = target.device.available_bytes if available is None else available
        self._sizes = Sizes(target, workload, self._available)
        self._of_languages = _floors_of(workload.languages)
        self._of_ways: dict[str, tuple[Reason, ...]] = {}
        self._no_forecast = Forecast(0, 0, 0, 0, 0, target.device.confidence)

    def all_of(
        self, variant: Variant, groups: Sequence[Sequence[Way]], lazy: bool
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
        judged: list[Candidate] = []
        named_obstacles: set[tuple[str, str]] = set()
        for group in groups:
            for way in group:
                # What keeps a runtime from building a variant at all is said once, not for each of
                # its recipes.
                size = self._size_of(variant, way)
                obstacle = size.obstacle
                if obstacle is None or (way.runtime.name, obstacle) not in named_obstacles:
                    judged.append(
                        self._one(variant, way, size, tuple(reasons), tuple(notes), scores, quality)
                    )
                if obstacle is not None:
                    named_obstacles.add((way.runtime.name, obstacle))
            # What comes last is not chosen before another runtime's has been looked at.
            if lazy and any(candidate.sure and not candidate.last for candidate in judged):
                break
        return judged

    def _shown_scores(self, variant: Variant) -> list[str]:
        named = [name for floor in self._case.floors for name, _ in floor.any_of]
        # Of the tests of a language only the one that decides: the others say the same in other
        # words.
        for floor in self._of_languages:
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
        values, stand_ins = [], []
        for name in self._case.quality:
            instead = None if name in scores else stand_in(variant, name, self._case.modes)
            if name in scores:
                values.append(scores[name])
            elif instead is not None:
                values.append(instead.value)
                stand_ins.append(instead.why)
        if not values or len(values) < len(self._case.quality):
            return None, []
        return round(sum(values) / len(values), 2), stand_ins

    def _size_of(self, variant: Variant, way: Way) -> Size:
        if variant.unbuildable is not None:
            nearest = (
                f"; the nearest that can be built is {variant.nearest}" if variant.nearest else ""
            )
            return Size(f"{variant.unbuildable}{nearest}")
        if variant.shape is None:
            return Size("no source states its shape")
        return self._sizes.of(variant.shape, way)

    def _reasons_of(self, way: Way) -> tuple[Reason, ...]:
        """The rules that look at runtime, recipe and device alone, whatever the variant."""
        known = self._of_ways.get(way.id)
        if known is None:
            device = self._target.device
            known = self._of_ways[way.id] = (
                *device_rules.processor(way.runtime.name, device),
                *device_rules.unit(way.recipe, device),
                *device_rules.at_once(way.runtime, self._workload),
            )
        return known

    def _one(
        self,
        variant: Variant,
        way: Way,
        size: Size,
        reasons: tuple[Reason, ...],
        notes: tuple[str, ...],
        scores: dict[str, float],
        quality: float | None,
    ) -> Candidate:
        running = self._running(variant, way, size)
        reasons = (*reasons, *self._reasons_of(way), *running.reasons)
        verdict: Verdict = "may miss" if running.may_miss else "fits"
        return Candidate(
            variant=variant,
            runtime=way.runtime.name,
            recipe=way.recipe,
            context=self._workload.context,
            verdict="rejected" if reasons else verdict,
            reasons=reasons,
            footprint=size.footprint,
            artifact_bytes=size.artifact,
            forecast=running.forecast,
            scores=scores,
            quality=quality,
            bits_per_weight=running.bits_per_weight,
            coarse=way.coarse,
            sized=size.obstacle is None,
            held=way.held is not None,
            notes=(*notes, *filter(None, (way.note, way.held))),
            rank=way.rank,
            order=way.order,
            split=size.split,
            may_miss=running.may_miss,
            crowded=self._sizes.crowded(size),
            alone=running.alone,
            machine_seconds=running.machine_seconds,
        )

    def _running(self, variant: Variant, way: Way, size: Size) -> _Running:
        """What the device makes of it: its bytes against the device's, and its speed."""
        shape, workload = variant.shape, self._workload
        if shape is None or size.obstacle is not None:
            wanted = f"a variant that {way.runtime.name} builds as {way.recipe.id}"
            has = (size.obstacle or "").rstrip(".")
            return _Running((Reason("runtime", wanted, has),), self._no_forecast)
        predicted, alone = self._sizes.forecast(shape, size, way)
        forecast = speed_rules.waiting(predicted, variant, self._case)
        too_slow = tuple(speed_rules.of_speed(forecast, workload))
        too_large = device_rules.of_size(
            size.footprint,
            size.artifact,
            self._target.device,
            workload,
            self._available,
            size.split,
        )
        return _Running(
            (
                *too_large,
                *device_rules.file_size(size.least_file, workload, way.runtime.name),
                *too_slow,
            ),
            forecast,
            alone,
            tuple(speed_rules.may_miss(forecast, workload, too_slow)),
            8 * size.artifact / shape.parameters(),
            speed_rules.machine_seconds(
                predicted, variant, self._case, sound_prompt(shape.audio, workload)
            ),
        )
