"""One variant in several recipes: each is built and measured like any build, the best is packaged,
the others' figures go with it.

`compare` plans, `run` is a generator of the same events as a single build's with a heading before
each recipe. What does not fit, cannot start or fails is a row with its reason; only where nothing
is left does it end in an error.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from packager.device.target import Target
from packager.errors import PackError, usage
from packager.events import AlternativeFinished, AlternativeStarted, Compared, Event, StageFailed
from packager.json_values import JsonObject, at
from packager.names import did_you_mean
from packager.need.workload import Preference
from packager.package.package import Package
from packager.pipeline import run as pipeline
from packager.pipeline.cache import BuildCache
from packager.pipeline.preflight import problems
from packager.pipeline.stages import Made
from packager.plan.plan import Plan, package_name
from packager.recipe import split_id
from packager.records import Measurement, Verdict
from packager.report.budgets import limits, verdicts
from packager.runtime import Runtime
from packager.select import Candidate, candidates, choose
from packager.select.measured import Seen, best
from packager.select.preference import ordered
from packager.units import human_bytes

ALL = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe of a comparison: its figures once it was built, else the reason why it was not, as
    a PackError."""

    runtime: str
    version: str | None
    recipe: str
    plan: Plan | None = None
    made: Made | None = None
    error: PackError | None = None

    @property
    def figures(self) -> Measurement | None:
        """Its measurement with the place; None where there is none."""
        return (
            self.made.measurement(self.plan)
            if self.made is not None and self.plan is not None
            else None
        )

    @property
    def artifact_bytes(self) -> int | None:
        """Size of the model files that were built."""
        return None if self.made is None else at(self.made.converted.facts, "artifact_bytes", int)

    @property
    def reason(self) -> str | None:
        """Why it was not built, in one line; None where it was."""
        return None if self.error is None else " ".join(str(self.error).split())

    def verdicts(self) -> list[Verdict]:
        """The budgets of the plan against its figures."""
        size = self.artifact_bytes
        return (
            []
            if self.plan is None or size is None
            else verdicts(
                limits(self.plan.workload, self.plan.target.device, self.plan.enforced),
                size,
                self.figures,
            )
        )

    def missed(self) -> bool:
        """Whether it does not keep an enforced budget."""
        return any(verdict.failed for verdict in self.verdicts())

    def as_dict(self) -> JsonObject:
        """JSON form: a row of the manifest's `alternatives[]`."""
        chosen = None if self.plan is None else self.plan.chosen
        return {
            "runtime": {"name": self.runtime, "version": self.version},
            "recipe": self.recipe,
            "artifact_bytes": self.artifact_bytes,
            "predicted": chosen.predicted() if chosen else None,
            "measured": self.figures.to_json() if self.figures else None,
            "not_measured": None if self.made is None else self.made.not_measured,
            "quality": None if self.made is None else self.made.quality.to_json(),
            "verdicts": [verdict.to_json() for verdict in self.verdicts()],
            "reason": self.reason,
        }

    def summary(self) -> str:
        """The row in a line of text."""
        if self.error is not None:
            return f"not built: {self.reason}"
        figures, size = self.figures, human_bytes(self.artifact_bytes or 0)
        if figures is None:
            return f"{size}, not measured: {self.made.not_measured if self.made else ''}"
        missed = ", misses a budget" if self.missed() else ""
        return (
            f"{size}, {human_bytes(figures.peak_memory_bytes or 0)} of memory, "
            f"{figures.decode_tps or 0:.1f} tok/s{missed}"
        )


@dataclass(frozen=True)
class Comparison:
    """What will be built, in the target's order, and the rows of what will not."""

    plans: tuple[Plan, ...]
    refused: tuple[Row, ...] = field(default=())


def compare(
    base: Plan,
    target: Target,
    runtimes: Sequence[Runtime],
    names: Sequence[str],
    recipes: Sequence[str],
) -> Comparison:
    """Plans for the variant of `base`, one for each of the target's runtimes that is among `names`
    ("all": every one).

    `recipes` are taken for their runtimes, the others choose by the workload's rule. Raises
    PackError (usage) for an unknown runtime or recipe, or one that the target does not serve.
    """
    plans, refused = [], []
    for runtime, recipe in _ways(target, runtimes, names, recipes):
        measured = candidates(
            target, base.workload, [base.chosen.variant], [runtime], recipe=recipe, named=True
        )
        chosen = choose(measured)
        if chosen is None:
            nearest = measured[0]
            error = PackError("; ".join(str(reason) for reason in nearest.reasons) + ".")
            refused.append(
                Row(
                    runtime.name,
                    None,
                    nearest.recipe.id if recipe else f"{runtime.prefix}:*",
                    error=error,
                )
            )
        else:
            plans.append(_plan(base, runtime, chosen))
    return Comparison(tuple(plans), tuple(refused))


def served(
    target: Target, runtimes: Sequence[Runtime], names: Sequence[str]
) -> tuple[Runtime, ...]:
    """The target's runtimes that are among `names`, in its order. Raises PackError (usage) for one
    that is not."""
    by_name = {runtime.name: runtime for runtime in runtimes}
    for name in names:
        if name != ALL and name not in target.runtimes:
            if name in by_name:
                raise usage(
                    f"{target.name} is not served by {name}.",
                    f"Its runtimes: {', '.join(target.runtimes)}.",
                )
            raise usage(
                f"There is no runtime {name!r}.{did_you_mean(name, [*by_name, ALL])}",
                f"Known: {', '.join(by_name)}, {ALL}.",
            )
    return tuple(
        by_name[name]
        for name in target.runtimes
        if name in by_name and (ALL in names or name in names)
    )


def _ways(
    target: Target, runtimes: Sequence[Runtime], names: Sequence[str], recipes: Sequence[str]
) -> list[tuple[Runtime, str | None]]:
    by_prefix: dict[str, list[str]] = {}
    for recipe in recipes:
        by_prefix.setdefault(split_id(recipe)[0], []).append(recipe)
    ways: list[tuple[Runtime, str | None]] = []
    for runtime in served(target, runtimes, names or [ALL]):
        own: list[str | None] = list(by_prefix.pop(runtime.prefix, []))
        if own or names:
            ways += [(runtime, recipe) for recipe in own or [None]]
    if by_prefix:
        raise usage(
            f"{next(iter(by_prefix.values()))[0]!r} belongs to no runtime that is compared for "
            f"{target.name}.",
            f"Its runtimes: {', '.join(target.runtimes)}.",
        )
    return ways


def _plan(base: Plan, runtime: Runtime, chosen: Candidate) -> Plan:
    everything = (base.chosen, *base.others)
    others = tuple(
        candidate
        for candidate in everything
        if (candidate.variant.repo_id, candidate.recipe.id)
        != (chosen.variant.repo_id, chosen.recipe.id)
    )
    named = base.out.name != package_name(base.chosen, base.source)
    out = base.out if named else base.out.with_name(package_name(chosen, base.source))
    return replace(base, chosen=chosen, others=others, runtime=runtime, out=out)


def check(comparison: Comparison, available_memory: int | None = None) -> Comparison:
    """The comparison without the plans that cannot start here, whose problems become their rows.

    Raises PackError where none can: its exit code is that of the first problem.
    """
    plans, refused = [], list(comparison.refused)
    for plan in comparison.plans:
        obstacles = problems(plan, available_memory)
        if obstacles:
            sentences = " ".join(str(problem) for problem in obstacles)
            refused.append(_row(plan, error=PackError(sentences, exit_code=obstacles[0].exit_code)))
        else:
            plans.append(plan)
    if not plans:
        lines = "".join(f"\n  - {row.recipe}: {row.error}" for row in refused)
        code = next(
            (row.error.exit_code for row in reversed(refused) if row.error is not None), None
        )
        raise PackError(f"None of these builds can start:{lines}", "", code or usage("").exit_code)
    return Comparison(tuple(plans), tuple(refused))


def run(comparison: Comparison, cache: BuildCache | None = None) -> Generator[Event, None, Package]:
    """Build and measure each, yield events, package the best. Raises the PackError of the first
    where all fail."""
    with (cache or BuildCache()).holding() as held:
        return (yield from _run(comparison, held))


def _run(comparison: Comparison, cache: BuildCache) -> Generator[Event, None, Package]:
    rows: list[Row] = []
    for number, plan in enumerate(comparison.plans, 1):
        yield AlternativeStarted(
            plan.runtime.name, plan.chosen.recipe.id, number, len(comparison.plans)
        )
        row = yield from _one(plan, cache)
        yield AlternativeFinished(row.runtime, row.recipe, row.summary(), row.as_dict())
        rows.append(row)
    built = [row for row in rows if row.made is not None]
    if not built:
        raise next(row.error for row in rows if row.error is not None)
    kept, why = _kept(built)
    yield Compared(kept.recipe, why)
    assert kept.plan is not None and kept.made is not None
    losers = [row.as_dict() for row in (*rows, *comparison.refused) if row is not kept]
    return (yield from pipeline.deliver(kept.plan, kept.made, losers))


def _one(plan: Plan, cache: BuildCache) -> Generator[Event, None, Row]:
    """One of them: its failure is its row, and the next one goes on."""
    with closing(pipeline.make(plan, cache)) as work:
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                return _row(plan, made=stop.value)
            except PackError as error:
                return _row(plan, error=error)
            yield replace(event, fatal=False) if isinstance(event, StageFailed) else event


def _row(plan: Plan, made: Made | None = None, error: PackError | None = None) -> Row:
    version = (
        plan.versions.get(plan.runtime.distributions[0]) if plan.runtime.distributions else None
    )
    return Row(plan.runtime.name, version, plan.chosen.recipe.id, plan, made, error)


def _kept(built: Sequence[Row]) -> tuple[Row, str]:
    """The best by the workload's rule, and why: by measured figures where those decide, by the
    plan's own order elsewhere."""
    plans = [row.plan for row in built if row.plan is not None]
    prefer = plans[0].workload.prefer
    figures = [row.figures for row in built]
    if len(built) == 1:
        return built[0], "the only one that was built"
    why_not = undecided(figures, prefer)
    if why_not is None:
        seen = [
            _seen(row, taken)
            for row, taken in zip(built, figures, strict=True)
            if taken is not None
        ]
        return built[best(seen, prefer)], f"the best by what was measured ({prefer})"
    keeping = [row for row in built if not row.missed()] or list(built)
    first = ordered([row.plan.chosen for row in keeping if row.plan is not None], prefer)[0]
    row = next(row for row in keeping if row.recipe == first.recipe.id)
    return (
        row,
        f"the first by the target's order and the forecast ({prefer}): {why_not}",
    )


def undecided(figures: Sequence[Measurement | None], prefer: Preference) -> str | None:
    """Why what was measured does not decide which artifact is kept; None where it does."""
    taken = [one for one in figures if one is not None and one.on_device]
    if len(taken) < len(figures):
        return "figures of another machine do not decide"
    # A slow engine is measured with a smaller picture, which takes less memory.
    held = {(one.image_tokens, one.audio_seconds) for one in taken}
    if prefer in ("smallest", "balanced") and len(held) > 1:
        return "memory with pictures or sounds of different sizes does not decide"
    return None


def _seen(row: Row, figures: Measurement) -> Seen:
    assert row.plan is not None and row.made is not None
    return Seen(
        figures.memory_bytes or 0,
        figures.decode_tps or 0.0,
        row.plan.chosen.bits_per_weight,
        row.made.quality.kl_mean,
        row.missed(),
    )
