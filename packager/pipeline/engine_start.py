"""The engine of a build: how it is started, found when the first stage needs it, and again where a
stage dies."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from packager.deaths import Died
from packager.engine_check.outcome import Start
from packager.events import Event, StageNote
from packager.pipeline import climb
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.job import STAGES, Job
from packager.pipeline.stage_run import compared_child, work
from packager.plan.plan import Plan
from packager.process import JobResult, Note

Result = TypeVar("Result")


class Engine:
    """A plan whose engine is started as it was found to work: found when the first stage needs it,
    and again where a stage dies."""

    def __init__(self, plan: Plan, key: str) -> None:
        self.plan, self._key, self._found = plan, key, False

    def start(self, stage: str) -> Generator[Event, None, None]:
        """Have the engine tried, if it is not known."""
        if not self._found:
            yield from self._take(stage, climb.climb(self.plan.runtime, self._key))

    def after(self, stage: str, death: Died) -> Generator[Event, None, None]:
        """Start it in the next way. Raises PackError where there is none."""
        if self.plan.start is None:
            raise death
        part = f"in the stage {STAGES[stage]!r}"
        yield from self._take(
            stage, climb.after_death(self.plan.runtime, self.plan.start, death, part, self._key)
        )

    def _take(self, stage: str, notes: climb.Notes) -> Generator[Event, None, None]:
        self.plan = replace(self.plan, start=(yield from narrated(stage, notes)))
        self._found = True


def on_ladder(
    cache: BuildCache,
    engine: Engine,
    job_of: Callable[[Plan], Job],
    stage: str,
    kept: Callable[[Job], Generator[Event, None, Entry | None]],
) -> Generator[Event, None, tuple[Entry, bool]]:
    """What a stage that opens the engine left, now or before (as `kept` tells), and whether it was
    before."""
    yield from engine.start(stage)
    while True:
        job = job_of(engine.plan)
        entry = yield from kept(job)
        if entry is not None:
            return entry, True
        try:
            return (yield from work(cache, job)), False
        except Died as death:
            yield from engine.after(stage, death)


def narrated(stage: str, work: Generator[Any, None, Result]) -> Generator[Event, None, Result]:
    """A generator of events and notes, the notes as events of a stage."""
    try:
        while True:
            try:
                message = next(work)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            yield StageNote(stage, message.text) if isinstance(message, Note) else message
    finally:
        work.close()


def started(job: Job, start: Start, log: Path) -> Generator[Event, None, JobResult]:
    """A job whose processes start the engine that way."""
    return compared_child(
        replace(job, env={**(job.env or {}), **start.environment}), job.arguments, log
    )
