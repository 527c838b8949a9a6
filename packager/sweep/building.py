"""One cell in this process: its build with the events of its stages, and the row that it leaves."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from packager.errors import ExitCode, PackError, from_foreign
from packager.events import Event, StageFailed, StageFinished
from packager.package.package import Package
from packager.pipeline import preflight
from packager.pipeline import run as pipeline
from packager.pipeline.cache import BuildCache
from packager.plan.plan import Plan
from packager.sweep import on_device
from packager.sweep.events import SweepEvent
from packager.sweep.expect import Pace
from packager.sweep.folder import Folder
from packager.sweep.keeping import Keeper
from packager.sweep.known import Known
from packager.sweep.matrix import Matrix, Planned, Planner
from packager.sweep.plan_file import SweepPlan
from packager.sweep.row import Row, Stages, done, not_done

Start = Callable[[], Generator[Event, None, Any]]


@dataclass(frozen=True)
class Work:
    """Everything a sweep works with."""

    plan: SweepPlan
    matrix: Matrix
    folder: Folder
    known: Known
    cache: BuildCache

    def planned(self, one: Planned) -> Plan:
        """The plan of a cell's build, into its folder of the sweep. Raises PackError with
        everything that would stop it."""
        plan = self._planner().plan(one.cell, self.folder.packages / one.cell.id)
        obstacles = preflight.problems(plan, self.known.available, self.cache)
        if obstacles:
            raise PackError(" ".join(map(str, obstacles)), exit_code=obstacles[0].exit_code)
        return plan

    def _planner(self) -> Planner:
        return Planner(self.plan, self.known)


def build(
    work: Work, keeper: Keeper, one: Planned, began: str
) -> Generator[Event | SweepEvent, None, Row]:
    """One cell of the run that `began` then: its failure is its row, and the next one goes on."""
    stages = Stages()

    def start() -> Generator[Event, None, Package]:
        keeper.make_room(one)
        return _measured_there(work, one, began)

    outcome = yield from guarded(work.folder, one, stages, start)
    return outcome if isinstance(outcome, Row) else row_of(work.folder, one, outcome, stages)


def _measured_there(work: Work, one: Planned, began: str) -> Generator[Event, None, Package]:
    """The build, and the measurement on the machine that the plan names for its target."""
    package = yield from pipeline.run(work.planned(one), work.cache)
    machine = on_device.machine_of(work.plan, one, work.known)
    if machine is None:
        return package
    return (yield from on_device.measured(work.known, package.path, machine, began))


def guarded(
    folder: Folder, one: Planned, stages: Stages, start: Start
) -> Generator[Event | SweepEvent, None, Any]:
    """What a build returns, or the row of its failure. Of a bug the traceback is kept in the
    sweep's folder."""
    try:
        with closing(start()) as events:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    return stop.value
                if isinstance(event, StageFinished):
                    stages.add(event.stage, event.seconds, event.cached)
                yield replace(event, fatal=False) if isinstance(event, StageFailed) else event
    except Exception as error:
        return failed(folder, one, error, stages)


def failed(folder: Folder, one: Planned, error: Exception, stages: Stages | None = None) -> Row:
    """The row of a cell whose build raised: the sentence of a known error, else that of a bug."""
    known = from_foreign(error)
    if known is not None:
        return not_done(one.cell, "failed", str(known), int(known.exit_code), stages=stages)
    log = folder.bug_file(one.cell.id)
    lines = "".join(traceback.format_exception(error))
    log.write_text(lines, encoding="utf-8", errors="backslashreplace")
    text = f"A bug in qwen-pack: {error!r}. {folder.below(log)} has the traceback."
    return not_done(one.cell, "failed", text, int(ExitCode.BUG), stages=stages)


def row_of(folder: Folder, one: Planned, package: Package, stages: Stages) -> Row:
    """The row of a package that was built."""
    built = package.manifest
    paths = (folder.below(package.path), None)
    return done(one.cell, built.data, built.contents, stages, paths, one.parameters or None)


def cache_with(url: str | None) -> BuildCache:
    """The local build cache, with the shared one at `url` beside it. Raises PackError where that
    is no place, or does not answer."""
    if url is None:
        return BuildCache()
    # Late: fsspec is needed for this alone.
    from packager.pipeline.shared_cache import Store

    return BuildCache(shared=Store(url, make=True))


def learnt(folder: Folder) -> Pace:
    """The pace of a folder's earlier runs."""
    pace = Pace()
    for earlier in folder.runs():
        for row in earlier.rows.values():
            if row.status == "done" and row.runtime and row.parameters:
                pace.learn(row.runtime, row.parameters, row.seconds)
    return pace
