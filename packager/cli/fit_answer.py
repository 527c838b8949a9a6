"""What `qwen-pack fit` finds out about one target, before anybody prints it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from packager.cli.options import Flags, workload_from
from packager.cli.rate_limits import RateLimit, in_own_words, per_sequence
from packager.errors import PackError
from packager.need.usecases import use_case
from packager.need.workload import no_answers

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.need.workload import Workload
    from packager.plan.drafts import Proposal
    from packager.runtime import Runtime
    from packager.select import Candidate
    from packager.select.elsewhere import Elsewhere
    from packager.select.misses import Miss
    from packager.select.steps import Step


class Wish(NamedTuple):
    """What was asked, the targets aside."""

    flags: Flags
    model: str | None
    recipe: str | None
    show_all: bool
    show_steps: bool
    runtimes: tuple[Runtime, ...]
    limits: tuple[RateLimit, ...] = ()
    price_of_hour: float | None = None

    def flags_for(self, target: Target) -> Flags:
        """The flags, with the rate that a cost or a day's tokens ask of each sequence where that is
        more than is asked anyway."""
        workload = workload_from(self.flags, target, self.model)
        if self.limits and use_case(workload.use_case).task != "generate":
            raise no_answers(workload.use_case, self.limits[0].flag)
        each = per_sequence(self.limits, workload.parallel)
        return (
            {**self.flags, "min_decode_tps": each}
            if each > (workload.min_decode_tps or 0.0)
            else self.flags
        )

    def workload_on(self, target: Target) -> Workload:
        """The workload of those flags on a target."""
        return workload_from(self.flags_for(target), target, self.model)


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything `fit` found out about one target."""

    target: Target
    workload: Workload
    judged: tuple[Candidate, ...]
    chosen: Candidate | None
    misses: tuple[Miss, ...]
    steps: tuple[Step, ...] | None
    problem: str = ""
    elsewhere: Elsewhere | None = None
    hour: float | None = None
    drafts: tuple[Proposal, ...] = ()
    """Variants that can draft for the chosen one."""
    instead: Candidate | None = None
    """What would be chosen of the whole catalogue, where a variant was named and steps are asked
    for."""

    def cost(self, candidate: Candidate) -> tuple[float, float, float] | None:
        """Of a million tokens of answers, as many at once as the workload has, or of texts that
        become vectors or scores: as forecast, at the least and at the most; None without a
        price."""
        speed = candidate.forecast
        if self.hour is None or not candidate.sized or speed.low <= 0:
            return None
        of_second = self.hour / 3600 * 1e6
        if use_case(self.workload.use_case).task != "generate":
            # Texts are read one after another, however many ask.
            low, high = speed.prefill_low or speed.prefill_tps, speed.prefill_high
            return (
                of_second / speed.prefill_tps,
                of_second / (high or speed.prefill_tps),
                of_second / low,
            )
        of_second /= speed.parallel
        return (of_second / speed.decode_tps, of_second / speed.high, of_second / speed.low)


def answer(target: Target, wish: Wish, alone: bool = True) -> Answer:
    """What one target says. `alone` looks also for what would help where nothing fits, and for
    drafts of what does. Raises PackError (usage) where the target is not served at all."""
    from packager import catalog
    from packager.select import candidates, choose

    named = wish.model is not None
    workload = wish.workload_on(target)
    variants = (catalog.find(wish.model),) if wish.model is not None else catalog.load()
    judged = candidates(
        target,
        workload,
        variants,
        wish.runtimes,
        recipe=wish.recipe,
        named=named,
        every=wish.show_all or named,
    )
    whole = Answer(
        target, workload, judged, choose(judged), (), _steps(judged, wish), hour=wish.price_of_hour
    )
    if alone:
        whole = _with_misses(whole, wish) if whole.chosen is None else _with_drafts(whole, wish)
    if wish.show_steps and named:
        whole = replace(whole, instead=_instead(target, workload, wish))
    return whole


def answer_or_problem(target: Target, wish: Wish) -> Answer:
    """For a matrix: a target that is not served is a row, not the end."""
    try:
        return answer(target, wish, alone=False)
    except PackError as error:
        workload = workload_from(wish.flags, target, wish.model)
        return Answer(target, workload, (), None, (), None, str(error))


def _steps(judged: tuple[Candidate, ...], wish: Wish) -> tuple[Step, ...] | None:
    if not wish.show_steps:
        return None
    from packager.select.steps import steps

    return steps(judged)


def _with_misses(answer: Answer, wish: Wish) -> Answer:
    """The nearest misses, and where else the model would run."""
    from packager.select.elsewhere import elsewhere
    from packager.select.misses import larger_than, nearest_misses
    from targets import registry

    target, workload, named = answer.target, answer.workload, wish.model is not None
    larger = tuple(larger_than(target, registry.targets(), wish.workload_on))
    misses = nearest_misses(
        target, workload, answer.judged, wish.runtimes, larger=larger, named=named
    )
    least = workload_from(wish.flags, target, wish.model).min_decode_tps or 0.0
    return replace(
        answer,
        misses=in_own_words(misses, wish.limits, workload.parallel, least),
        elsewhere=elsewhere(target, answer.judged, larger, wish.runtimes, named=named),
    )


def _with_drafts(answer: Answer, wish: Wish) -> Answer:
    from packager import catalog
    from packager.plan.drafts import proposals

    assert answer.chosen is not None
    drafts = proposals(answer.target, answer.workload, answer.chosen, catalog.load(), wish.runtimes)
    return replace(answer, drafts=drafts)


def _instead(target: Target, workload: Workload, wish: Wish) -> Candidate | None:
    """What would be chosen of the whole catalogue for the same need; None where that is the variant
    that was named, or nothing.

    Who moves from one variant to another looks for a better one: the smallest that passes is no
    answer to that.
    """
    from packager import catalog
    from packager.select import candidates, choose

    prefer = "quality" if workload.prefer == "smallest" else workload.prefer
    best = choose(
        candidates(
            target, replace(workload, prefer=prefer), catalog.load(), wish.runtimes, named=False
        )
    )
    same = best is not None and wish.model is not None and best.variant == catalog.find(wish.model)
    return None if same else best
