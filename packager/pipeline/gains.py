"""What is measured of an artifact beside the smoke benchmark and shown with it: drafted tokens, the
warm start."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial

from packager.catalog.licences import stated
from packager.events import Event, StageNote
from packager.pipeline import speculation_stage, stages, warm_stage
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.engine_start import Engine, on_ladder
from packager.pipeline.job import Job, checkpoint_of
from packager.pipeline.speculation_stage import DraftFiles, Verdict
from packager.pipeline.stage_run import Events, failures, kept, work
from packager.plan.plan import Plan
from packager.records.contents import WarmStart
from packager.records.speculation import Speculation

_SHOWN = "measure"


def warm(
    cache: BuildCache,
    engine: Engine,
    fetched: Entry,
    converted: Entry,
    artifact: Job,
    measured: Entry,
) -> Generator[Event, None, WarmStart | None]:
    """What the state of the fixed prefix gains, with the figures of the benchmark; None where none
    was asked for, or the artifact cannot be run here."""
    if not engine.plan.warm or "not_measured" in measured.facts:
        return None
    job_of = partial(
        warm_stage.measure,
        converted=converted,
        artifact=artifact,
        fetched=fetched,
        log=cache.log("template"),
    )
    with failures(_SHOWN) as failed:
        entry = yield from _figures(cache, engine, job_of)
        gain = warm_stage.record(engine.plan, entry)
        yield StageNote(_SHOWN, gain.sentence())
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    return gain


def drafting(
    cache: BuildCache, engine: Engine, converted: Entry, artifact: Job, measured: Entry
) -> Generator[Event, None, Verdict | None]:
    """What drafted tokens cost and gain in every way that was asked for; None where none was, or
    the artifact cannot be run here."""
    untried = engine.plan.untried
    if not engine.plan.speculate and untried:
        return Verdict(Speculation.of_none(untried))
    if not engine.plan.speculate or "not_measured" in measured.facts:
        return None
    seen = []
    with failures(_SHOWN) as failed:
        draft = yield from _draft(cache, engine.plan)
        for how in engine.plan.speculate:
            job_of = partial(
                speculation_stage.measure,
                converted=converted,
                artifact=artifact,
                how=how,
                draft=draft,
            )
            entry = yield from _figures(cache, engine, job_of)
            seen.append(speculation_stage.record(engine.plan, entry, draft))
            yield StageNote(_SHOWN, seen[-1].sentence())
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    return speculation_stage.decide(seen, draft, untried)


def _figures(cache: BuildCache, engine: Engine, job_of: Callable[[Plan], Job]) -> Events:
    entry, _ = yield from on_ladder(cache, engine, job_of, _SHOWN, lambda job: kept(cache, job))
    return entry


def _draft(cache: BuildCache, plan: Plan) -> Generator[Event, None, DraftFiles | None]:
    """The model that drafts, converted where that is needed; None where none drafts."""
    draft = plan.draft
    if draft is None:
        return None
    if draft.package is not None:
        return speculation_stage.of_package(draft.package, plan.runtime.name)
    assert draft.plan is not None
    own = replace(draft.plan, start=plan.start)
    yield StageNote(_SHOWN, f"Getting the draft: {draft.variant} as {draft.recipe}.")
    fetch = replace(stages.fetch(own), row=_SHOWN)
    fetched = (yield from kept(cache, fetch)) or (yield from work(cache, fetch))
    convert = replace(stages.convert(own, fetched), row=_SHOWN)
    entry = (yield from kept(cache, convert)) or (yield from work(cache, convert))
    license_name = stated(own.chosen.variant.license, own.source.kind, fetched.facts)
    return speculation_stage.of_entry(entry, convert, checkpoint_of(fetched), license_name)
