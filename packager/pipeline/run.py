"""A build, read from top to bottom: fetch, convert, measure, quality, package.

`run(plan)` is a generator of frozen events that prints nothing and returns the Package. Work
happens in child processes; closing the generator at any point ends them and leaves the finished
stages in the cache, never a package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from packager.chat import speech
from packager.chat.speech import Speech
from packager.errors import ExitCode, PackError
from packager.events import Event, StageFinished, StageNote, StageStarted
from packager.json_values import JsonObject, at
from packager.package import package as package_module
from packager.package import shelf
from packager.package.package import Package
from packager.pipeline import climb, gains, speculation_stage, stages
from packager.pipeline import packaging as package
from packager.pipeline import quality_stage as gate
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.engine_start import Engine, narrated, on_ladder, started
from packager.pipeline.job import STAGES, Job, checkpoint_of
from packager.pipeline.stage_run import (
    Events,
    age,
    announce,
    compared_child,
    copying,
    failures,
    kept,
    summary,
    work,
)
from packager.pipeline.stages import Made
from packager.pipeline.underway import underway
from packager.plan.plan import Plan
from packager.process import JobResult
from packager.quality import verdict
from packager.records import Quality
from packager.runtime import Runtime
from packager.units import human_bytes

__all__ = ["STAGES", "deliver", "make", "run", "run_alone"]


def run(plan: Plan, cache: BuildCache | None = None) -> Generator[Event, None, Package]:
    """Build the plan; yield events and return the finished package.

    Raises PackError as soon as a stage fails, after the StageFailed that says the same.
    """
    with underway(plan.out), (cache or BuildCache()).holding() as held:
        made = yield from make(plan, held)
        return (yield from deliver(plan, made))


def make(plan: Plan, cache: BuildCache) -> Generator[Event, None, Made]:
    """Everything before the package: the weights, the artifact, its figures, what it lost."""
    fetched, convert, engine, converted, measured = yield from _measured(plan, cache)
    drafting = yield from gains.drafting(cache, engine, converted, convert, measured)
    settled = speculation_stage.settled(plan, drafting)
    if settled.heads != plan.heads:
        fetched, convert, engine, converted, measured = yield from _measured(settled, cache)
    measure = partial(stages.measure, converted=converted, artifact=convert)
    start = engine.plan.start
    quality = yield from _quality(cache, engine, fetched, converted, convert, measured)
    if engine.plan.start != start:
        # The package says how the engine is started, and its figures are of that.
        measured = yield from _stage(cache, measure(engine.plan), engine=engine, again=measure)
    warm = yield from gains.warm(cache, engine, fetched, converted, convert, measured)
    keys = stages.keys_of(convert, measure(engine.plan), measured)
    if drafting is not None:
        keys = {**keys, "drafting": drafting.key}
    return Made(fetched, converted, measured, keys, quality, engine.plan.start, warm, drafting)


def _measured(
    plan: Plan, cache: BuildCache
) -> Generator[Event, None, tuple[Entry, Job, Engine, Entry, Entry]]:
    """See `_artifact`, and the smoke benchmark of it."""
    fetched, convert, engine, converted = yield from _artifact(plan, cache)
    measure = partial(stages.measure, converted=converted, artifact=convert)
    measured = yield from _stage(cache, measure(engine.plan), engine=engine, again=measure)
    return fetched, convert, engine, converted, measured


def judge(plan: Plan, cache: BuildCache) -> Generator[Event, None, tuple[Quality, int]]:
    """The artifact and what it lost, before it is measured; returns that and the bytes of its
    files. Everything stays in the cache for the build."""
    with cache.holding() as held:
        fetched, convert, engine, converted = yield from _artifact(plan, held)
        # Whether it runs here is what a measurement would tell.
        unknown = Entry(converted.folder, {})
        quality = yield from _quality(held, engine, fetched, converted, convert, unknown)
        return quality, at(converted.facts, "artifact_bytes", int)


def deliver(
    plan: Plan, made: Made, losers: Sequence[JsonObject] = ()
) -> Generator[Event, None, Package]:
    """The package of what was made; `losers` are what was built and measured beside it, for its
    manifest."""
    yield from announce("package")
    began = time.monotonic()
    plan = speculation_stage.settled(plan, made.drafting)
    with failures("package") as failed:
        stages.descriptions(made.fetched).check()
        build_key = stages.package_key(plan, made.keys, losers)
        finished = yield from copying(package_module.reuse(plan.out, build_key))
        cached = isinstance(finished, Package)
        if not isinstance(finished, Package):
            if finished is not None:
                yield StageNote(
                    "package",
                    f"The package that is there is damaged ({finished}): it is written again.",
                )
            finished = yield from copying(package.write(plan, build_key, made, losers))
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert isinstance(finished, Package)
    size = sum(entry.size for entry in finished.manifest.files)
    counted = f"{len(finished.manifest.files)} files, {human_bytes(size)}"
    yield StageFinished(
        "package", time.monotonic() - began, cached, counted, {"package": str(finished.path)}
    )
    shelf.remember(finished.path)
    return finished


def run_alone(
    job: Job, log: Path, runtime: Runtime | None = None, key: str = ""
) -> Generator[Event, None, JobResult]:
    """One stage outside a build, with the events of a build of one stage; its result is not cached.

    With a `runtime` the stage opens its engine, which is started as it was found to work; `key`
    names the artifact. The result's value has the name of the rung then, see packager.engine_check.
    """
    yield StageStarted(job.stage, job.title or STAGES[job.stage], 1, 1)
    result: JobResult | None = None
    with failures(job.stage) as failed:
        if runtime is None:
            result = yield from compared_child(job, job.arguments, log)
        else:
            climbing = climb.on_ladder(
                runtime,
                f"in the stage {STAGES[job.stage]!r}",
                key,
                lambda start: started(job, start, log),
            )
            result, start = yield from narrated(job.shown, climbing)
            result = replace(result, value={**result.value, "rung": start.name})
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert result is not None
    yield StageFinished(job.stage, result.seconds, False, summary(result.value), result.value)
    return result


def _artifact(
    plan: Plan, cache: BuildCache
) -> Generator[Event, None, tuple[Entry, Job, Engine, Entry]]:
    """The weights and what was made of them: the fetched entry, the conversion's job, the engine
    that ran it, and what it left."""
    # The weights are read where they are converted, the artifact in every build: those bytes are
    # compared.
    fetched = yield from _stage(
        cache,
        stages.fetch(plan),
        lambda entry: not stages.is_kept(cache, stages.convert(plan, entry)),
    )
    notes = yield from _speech(plan, fetched)
    convert = stages.convert(plan, fetched)
    engine = Engine(plan, str(convert.key))
    converted = yield from _stage(
        cache, convert, notes=notes, engine=engine, again=partial(stages.convert, fetched=fetched)
    )
    return fetched, convert, engine, converted


def _speech(plan: Plan, fetched: Entry) -> Generator[Event, None, Sequence[str]]:
    """What is worth a note about templates and ends of turn; what cannot be rendered ends the build
    here."""
    spoken: Speech | None = None
    with failures("convert") as failed:
        spoken = speech.of_folder(checkpoint_of(fetched), plan.profile)
    if failed:
        yield from announce("convert")
        yield failed[0][0]
        raise failed[0][1]
    assert spoken is not None
    return spoken.notes


def _stage(
    cache: BuildCache,
    job: Job,
    whole: Callable[[Entry], bool] = lambda entry: True,
    *,
    notes: Sequence[str] = (),
    engine: Engine | None = None,
    again: Callable[[Plan], Job] | None = None,
) -> Events:
    """One stage from the cache, or in a child process and then into the cache.

    `whole`: see stage_run.kept; `notes` are said of it first. One that opens the `engine` is the
    job that `again` makes of a plan: where the engine dies, it runs on the next rung.
    """
    yield from announce(job.stage, job.title)
    for note in notes:
        yield StageNote(job.shown, note)
    began = time.monotonic()
    entry = None if job.by_start else (yield from kept(cache, job, whole))
    cached = entry is not None
    with failures(job.stage) as failed:
        if engine is None or again is None:
            entry = entry or (yield from work(cache, job))
        elif entry is None:
            entry, cached = yield from on_ladder(
                cache, engine, again, job.shown, lambda job: kept(cache, job, whole)
            )
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert entry is not None
    text = summary(entry.facts)
    yield StageFinished(
        job.stage,
        time.monotonic() - began,
        cached,
        age(entry.facts) + text if cached else text,
        entry.facts,
    )
    return entry


def _quality(
    cache: BuildCache,
    engine: Engine,
    fetched: Entry,
    converted: Entry,
    convert: Job,
    measured: Entry,
) -> Generator[Event, None, Quality]:
    """The artifact against the unquantized checkpoint. What was compared is kept, also where it
    stops the build."""
    yield from announce("quality")
    began = time.monotonic()
    cached, quality = False, gate.not_here(measured)
    with failures("quality") as failed:
        if quality is None:
            yield from engine.start("quality")
            why_not, reference = gate.why_not(engine.plan), None
            job = gate.compare(engine.plan, fetched, converted, convert, why_not is None)
            entry = yield from _complete(cache, job, why_not is None)
            cached = entry is not None
            if entry is None and why_not is None:
                reference, why_not = yield from _reference(
                    cache, gate.reference(engine.plan, fetched)
                )
            if entry is None:
                compare = partial(
                    gate.compare,
                    fetched=fetched,
                    converted=converted,
                    artifact=convert,
                    divergence=why_not is None,
                    kept=reference,
                )
                complete = partial(_complete, cache, divergence=why_not is None)
                entry, cached = yield from on_ladder(cache, engine, compare, "quality", complete)
            verdict.refuse_incomplete(entry.facts, why_not is None)
            quality = gate.result(engine.plan, entry.facts, why_not)
            verdict.check(quality)
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert quality is not None
    yield StageFinished(
        "quality",
        time.monotonic() - began,
        cached,
        verdict.summary(quality),
        quality.to_json(),
    )
    return quality


def _complete(
    cache: BuildCache, job: Job, divergence: bool
) -> Generator[Event, None, Entry | None]:
    """What was compared before; None where it lacks what a verdict stands on."""
    entry = yield from kept(cache, job)
    lacking = None if entry is None else verdict.lacking(entry.facts, divergence)
    if entry is None or lacking is None:
        return entry
    yield StageNote(
        job.shown, f"What the cache kept of the comparison lacks {lacking}: it is made again."
    )
    cache.drop(entry)
    return None


def _reference(
    cache: BuildCache, job: Job
) -> Generator[Event, None, tuple[Entry | None, str | None]]:
    """What the unquantized checkpoint says; else the reason why that cannot be had on this machine,
    which stops no build."""
    try:
        entry = (yield from kept(cache, job)) or (yield from work(cache, job))
    except PackError as error:
        if error.exit_code is not ExitCode.RESOURCE:
            raise
        return None, error.message
    why_not = entry.facts.get("not_possible") or entry.facts.get("says_nothing")
    return (None, str(why_not)) if why_not else (entry, None)
