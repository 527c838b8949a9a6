"""The executor without a dependency: cell after cell in this process, each stage in its child.

What a stage leaves lies in the build cache, and the row of a cell in the sweep's folder, before
anything else starts: whatever ends the sweep costs the stage that was running and nothing more.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack

from packager.events import Event
from packager.pipeline.stages import taken_since
from packager.sweep import pruning
from packager.sweep.building import Work, build
from packager.sweep.events import CellFinished, CellStarted, SweepEvent, Told
from packager.sweep.folder import Run
from packager.sweep.keeping import Keeper
from packager.sweep.matrix import Planned
from packager.sweep.progress import Clock
from packager.sweep.row import Row, not_done

Events = Generator[Event | SweepEvent, None, None]


def run(work: Work) -> Generator[Event | SweepEvent, None, Run]:
    """Do what is left of the sweep; yield events, return the run with a row for each cell."""
    with ExitStack() as held:
        held.enter_context(work.folder.held())
        current = yield from begun(work)
        # Targets share a measurement, and a run that goes on takes what it had.
        held.enter_context(taken_since(current.file.started))
        left = remaining(work, current)
        keeper = Keeper(work.plan, work.folder, work.cache, current.rows)
        if work.plan.keep is not None:
            left = yield from pruning.prune(work, current, keeper, left, pruning.judge_here(work))
        yield from build_all(work, current, keeper, left)
        if work.plan.keep is not None:
            yield from pruning.last(work, current, keeper)
        work.folder.finish(current)
    return current


def begun(work: Work) -> Generator[Event | SweepEvent, None, Run]:
    """The run to work on; cells that cannot be built get their row."""
    current, again = work.folder.begin(work.plan)
    if again and current.rows:
        there = len(current.rows)
        yield Told(f"Run {current.number} continues: {there} of its cells are done.")
    for planned in work.matrix.planned:
        before = current.rows.get(planned.cell.id)
        if planned.problem is not None and (before is None or before.reason != planned.problem):
            row = not_done(planned.cell, "refused", planned.problem, planned.exit_code)
            work.folder.add(current, row)
            yield CellFinished(planned.cell, row)
    return current


def remaining(work: Work, current: Run) -> tuple[Planned, ...]:
    """What is left to build, in order: all but what is done and there, and what pruning dropped.
    What failed is tried again."""
    settled = {
        row.id
        for row in current.rows.values()
        if row.status == "dropped" or (row.status == "done" and work.folder.is_there(row))
    }
    return tuple(planned for planned in work.matrix.possible if planned.cell.id not in settled)


def build_all(work: Work, current: Run, keeper: Keeper, todo: Sequence[Planned]) -> Events:
    """Build the cells one after the other."""
    clock = Clock(todo)
    for number, planned in enumerate(todo, 1):
        yield CellStarted(planned.cell, number, len(todo), clock.left())
        row = yield from build(work, keeper, planned, current.file.started)
        clock.finished(planned, row)
        yield from settle(work, current, keeper, planned, row)


def settle(work: Work, current: Run, keeper: Keeper, one: Planned, row: Row) -> Events:
    """Keep the row of a finished cell, and drop the packages that need not stay now."""
    work.folder.add(current, row)
    yield CellFinished(one.cell, row)
    for text in keeper.thin(current.rows, row):
        yield Told(text)
    for changed in keeper.changed():
        work.folder.add(current, changed)
