"""One stage of one build, on whatever machine: the work of a task.

What the stage leaves lies in the build cache, and the answer says so and nothing more. A unit looks
into the cache first, so that work whose answer was lost is not done again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packager import __version__
from packager.device.this_machine import installation_id
from packager.digests import key_of
from packager.errors import ExitCode, from_foreign
from packager.events import (
    Event,
    StageFinished,
    StageMemory,
    StageProgress,
)
from packager.pipeline import run as pipeline
from packager.pipeline.stages import taken_since
from packager.sweep import machine_lock, on_device
from packager.sweep.building import Work, cache_with
from packager.sweep.folder import Folder
from packager.sweep.known import Known
from packager.sweep.matrix import Matrix, Planned
from packager.sweep.plan_file import SweepPlan

Stage = Literal["fetch", "convert", "gate", "measure", "quality", "package", "device"]
Lane = tuple[str, ...]
AFTER_MEASURE = ("quality", "package")


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is asked: a stage of a cell of a plan. `root` is the sweep's folder, `began`
    when the run began, `shared` the URL of a shared cache. `machine` is the installation that has
    measured the cell, None before. `lanes` are those of its work that nobody has done yet."""

    stage: Stage
    one: Planned
    plan: SweepPlan
    root: str
    began: str
    shared: str | None = None
    version: str = __version__
    machine: str | None = None
    lanes: tuple[Lane, ...] = ()


def lanes(stage: Stage, one: Planned) -> list[Lane]:
    """What a unit may leave that other cells need too: of those with the same only one runs at a
    time, until it is there. Cells of several targets share all but their package."""
    cell = one.cell
    form = (cell.weights, cell.recipe_id, cell.profile, str(one.context))
    if stage == "fetch":
        return [("fetch", cell.weights)]
    if stage in ("gate", "quality"):
        # The first one has the unquantized checkpoint read the text.
        return [("reference", cell.weights, str(one.context)), ("quality", *form)]
    return [] if stage == "package" else [(stage, *form)]


def lanes_of(order: Order) -> list[Lane]:
    """The same of an order; the slot of a device is none that is ever there for good."""
    if order.stage == "device":
        return [on_device.lane(order.plan.on[order.one.cell.target])]
    return lanes(order.stage, order.one)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a unit. `machine` did it, on that `host` of the cluster; `moved` says that the
    cell has to be measured again, since this machine has no measurement of it. `error` is a
    sentence."""

    machine: str
    seconds: float = 0.0
    cached: bool = False
    host: str = ""
    error: str | None = None
    exit_code: int = 0
    bug: str | None = None
    moved: bool = False
    kl_mean: float | None = None
    artifact_bytes: int | None = None


def do(order: Order, known: Known) -> Answer:
    """Do a unit of work. Whatever goes wrong is in the answer."""
    machine = installation_id()
    began = time.monotonic()
    try:
        refused = _refusal(order)
        if refused is not None:
            return Answer(machine, error=refused, exit_code=int(ExitCode.USAGE))
        if order.machine is not None and order.machine != machine:
            return Answer(machine, moved=True)
        with ExitStack() as held:
            for lane in order.lanes:
                held.enter_context(machine_lock.claim(key_of(lane)))
            held.enter_context(
                machine_lock.alone() if order.stage == "measure" else machine_lock.shared()
            )
            held.enter_context(taken_since(order.began))
            return _done(order, known, machine)
    except Exception as error:
        known_error = from_foreign(error)
        seconds = time.monotonic() - began
        if known_error is not None:
            return Answer(
                machine, seconds, error=str(known_error), exit_code=int(known_error.exit_code)
            )
        bug = "".join(traceback.format_exception(error))
        return Answer(machine, seconds, error=repr(error), exit_code=int(ExitCode.BUG), bug=bug)


def _refusal(order: Order) -> str | None:
    """Why this worker cannot take part."""
    if order.version != __version__:
        return (
            f"The worker has qwen-pack {__version__}, and the sweep {order.version}: install the "
            "same on all machines."
        )
    if not (Path(order.root) / "sweep.json").is_file():
        return (
            f"The worker does not see the sweep's folder {order.root}: put it on a disk that all "
            "machines share, under the same path."
        )
    return None


def _done(order: Order, known: Known, machine: str) -> Answer:
    work = Work(
        order.plan, Matrix((order.one,)), Folder(Path(order.root)), known, cache_with(order.shared)
    )
    if order.stage == "device":
        return _on_device(order, work, machine)
    plan = work.planned(order.one)
    if order.stage == "gate":
        return _judged(pipeline.judge(plan, work.cache), machine)
    finished = _advanced(pipeline.run(plan, work.cache), order.stage)
    if finished is None:
        return Answer(machine, moved=True)
    return Answer(machine, finished.seconds, finished.cached)


def _on_device(order: Order, work: Work, machine: str) -> Answer:
    began = time.monotonic()
    device = order.plan.on[order.one.cell.target]
    path = work.folder.packages / order.one.cell.id
    exhaust(on_device.measured(work.known, path, device, order.began, held=True))
    return Answer(machine, time.monotonic() - began)


def _advanced(events: Generator[Event, None, Any], stage: Stage) -> StageFinished | None:
    """The end of a stage of a build, the ones before it from the cache. None where the measurement
    that should be there is not: it is not taken beside others."""
    with closing(events):
        for event in events:
            if isinstance(event, StageFinished) and event.stage == stage:
                if stage == "package":
                    exhaust(events)  # what comes after it: the shelf remembers the package
                return event
            if stage in AFTER_MEASURE and _measures(event):
                return None
    raise AssertionError(f"the build ended without {stage}")


def exhaust(events: Generator[Event, None, Any]) -> None:
    """Let a build come to its end."""
    for _ in events:
        pass


def _measures(event: Event) -> bool:
    """Whether an event shows that something is measured now."""
    return isinstance(event, StageProgress | StageMemory) and event.stage == "measure"


def _judged(events: Generator[Event, None, Any], machine: str) -> Answer:
    began = time.monotonic()
    cached = True
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                quality, size = stop.value
                return Answer(
                    machine,
                    time.monotonic() - began,
                    cached,
                    kl_mean=quality.kl_mean,
                    artifact_bytes=size,
                )
            if isinstance(event, StageFinished):
                cached = cached and event.cached
