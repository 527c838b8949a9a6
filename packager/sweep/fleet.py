"""The executor on Dask: units as tasks on a cluster, or on workers of this machine.

A task returns that its unit is done and no more. Memory is a resource of a worker, and so is its
machine, of which there is one: a measurement asks for it and waits until nobody else works there.
What was measured on a machine is judged and packaged on that machine. This process alone writes
rows, and hands out units one by one as their cells go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from packager.errors import ExitCode, PackError, no_room, unreachable, usage
from packager.events import Event
from packager.package import manifest
from packager.package.package import Package
from packager.sweep import on_device
from packager.sweep.building import Work, failed, row_of
from packager.sweep.clusters import MOST_TRIES, client
from packager.sweep.courses import AHEAD, JUDGED, WHOLE, Course, Courses
from packager.sweep.events import CellStarted, StageGiven, SweepEvent, Told
from packager.sweep.folder import Run
from packager.sweep.inline import begun, remaining, settle
from packager.sweep.keeping import Keeper
from packager.sweep.matrix import Planned
from packager.sweep.progress import Clock
from packager.sweep.pruning import Judged, last, prune
from packager.sweep.row import Row, not_done
from packager.sweep.unit import AFTER_MEASURE, Answer, Order, Stage
from packager.units import human_bytes

if TYPE_CHECKING:
    from distributed import Client

Task = Callable[[Order], Answer]
Ended = tuple[Course, Row | None]
_TICK_S = 1.0
_GONE_S = 60.0
"""How long a machine may be away before what was measured on it is measured anew."""
_LOOK_S = 10.0


def run(work: Work, address: str, task: Task) -> Generator[Event | SweepEvent, None, Run]:
    """Do what is left of the sweep on a cluster; yield events, return the run with a row for each
    cell. `task` does a unit on a worker."""
    with (
        work.folder.held(),
        client(address, work.known.available, work.folder.root) as (dask, started),
    ):
        current = yield from begun(work)
        fleet = Fleet(work, current, dask, started.refill, task)
        if started.comes_late:
            yield from fleet.first_worker()
        yield Told(fleet.introduced())
        left = remaining(work, current)
        keeper = Keeper(work.plan, work.folder, work.cache, current.rows)
        if work.plan.keep is not None:
            left = yield from prune(work, current, keeper, left, fleet.judge)
        yield from fleet.build(keeper, left)
        if work.plan.keep is not None:
            yield from last(work, current, keeper)
        work.folder.finish(current)
    return current


class Fleet:
    """The units of a run on their way through a cluster."""

    def __init__(
        self, work: Work, current: Run, dask: Client, refill: Callable[[], None], task: Task
    ) -> None:
        self._work, self._current, self._dask, self._task = work, current, dask, task
        self._refill = refill
        self._gone: dict[str, float] = {}
        self._alone = False

    def first_worker(self) -> Iterator[Told]:
        """Wait until a worker is there, however long the queue of the cluster is."""
        if not self._workers():
            yield Told("Waiting for the first worker.")
        while not self._workers():
            self._refuse_without_scheduler()
            time.sleep(_TICK_S)
            self._refill()

    def introduced(self) -> str:
        """The cluster in a sentence. Raises PackError where no worker says what it has."""
        workers = self._workers()
        if not workers:
            raise unreachable(
                "The scheduler has no workers.", "Start one: dask worker ADDRESS --resources ..."
            )
        if not any(_has(one, "memory") and _has(one, "machine") for one in workers.values()):
            raise usage(
                "No worker says how much memory it has, or that it has a machine.",
                "Start workers with --resources 'memory=32e9 machine=1' --nworkers 1 --nthreads 1.",
            )
        hosts = {_host(address) for address in workers}
        memory = max(one["resources"].get("memory", 0) for one in workers.values())
        return (
            f"{_counted(len(workers), 'worker')} on {_counted(len(hosts), 'machine')}, the largest "
            f"with {human_bytes(memory)}."
        )

    def judge(
        self, keeper: Keeper, todo: tuple[Planned, ...]
    ) -> Generator[Event | SweepEvent, None, dict[str, Judged | Row]]:
        """Convert and judge cells, before anything is measured."""
        judged: dict[str, Judged | Row] = {}
        for ended in self._through(todo, JUDGED, keeper):
            if isinstance(ended, StageGiven | Told):
                yield ended
                continue
            course, row = ended
            answer = course.answer
            if row is not None:
                judged[course.one.cell.id] = row
            elif answer is not None:
                judged[course.one.cell.id] = Judged(answer.kl_mean, answer.artifact_bytes or 0)
            yield Told(f"{course.one.cell.label}: conversion and quality gate done")
        return judged

    def build(
        self, keeper: Keeper, todo: tuple[Planned, ...]
    ) -> Generator[Event | SweepEvent, None, None]:
        """Build, measure and package cells."""
        clock, done = Clock(todo), 0
        for ended in self._through(todo, WHOLE, keeper):
            if isinstance(ended, StageGiven | Told):
                yield ended
                continue
            course, row = ended
            done += 1
            row = row or self._row(course)
            clock.finished(course.one, row)
            left = clock.left() / max(1, len(self._workers()))
            yield CellStarted(course.one.cell, done, len(todo), left)
            yield from settle(self._work, self._current, keeper, course.one, row)

    def _row(self, course: Course) -> Row:
        """The row of a finished cell, from the manifest in the sweep's folder."""
        one, folder = course.one, self._work.folder
        path = folder.packages / one.cell.id
        try:
            return row_of(folder, one, Package(path, manifest.read(path)), course.taken)
        except (PackError, OSError) as error:
            return failed(folder, one, error, course.taken)

    def _through(
        self, todo: tuple[Planned, ...], way: tuple[Stage, ...], keeper: Keeper
    ) -> Iterator[StageGiven | Told | Ended]:
        """Every cell once it has gone all the way (with None), or with its row where it did
        not."""
        courses = Courses(todo, way, self._then if way == WHOLE else lambda _: ())
        running: dict[Any, tuple[Course, Order]] = {}
        looked = time.monotonic()
        try:
            while courses.waiting or running:
                self._refuse_without_scheduler()
                yield from self._start(courses, running, keeper)
                self._wait(running)
                for future in [one for one in running if one.done()]:
                    ended = self._ended(courses, *running.pop(future), future)
                    if ended is not None:
                        yield ended
                if time.monotonic() - looked > _LOOK_S:
                    looked = time.monotonic()
                    yield from self._leave_the_lost(courses, running)
        finally:
            for future in running:
                future.cancel()

    def _then(self, one: Planned) -> tuple[Stage, ...]:
        """What follows the package of a cell."""
        machine = on_device.machine_of(self._work.plan, one, self._work.known)
        return () if machine is None else ("device",)

    def _start(
        self, courses: Courses, running: dict[Any, tuple[Course, Order]], keeper: Keeper
    ) -> Iterator[StageGiven | Ended]:
        """Hand out what may run, as far as the cluster needs it."""
        workers = self._workers()
        free = sum(course.host is None for course, _ in running.values())
        room = AHEAD * max(1, len(workers)) - free
        later = []
        for course, order in courses.ready(self._order, room):
            if order.stage == "convert" and not self._has_room(course.one, running, keeper):
                # What others are about to write is there when they have ended.
                courses.free(order, course)
                later.append(course)
                continue
            row = self._refusal(course, order, workers, keeper)
            if row is not None:
                courses.free(order, course)
                yield course, row
                continue
            resources = _resources(order, workers)
            pinned = course.host is not None and order.stage != "device"
            where = [course.host] if pinned else None
            future = self._dask.submit(
                self._task, order, resources=resources, workers=where, pure=False, retries=0
            )
            running[future] = (course, order)
            yield StageGiven(course.one.cell, order.stage)
        for course in reversed(later):
            courses.again(course)

    def _has_room(
        self, one: Planned, running: dict[Any, tuple[Course, Order]], keeper: Keeper
    ) -> bool:
        """Whether a conversion stays below the plan's limit of disk beside those at work; where
        none is at work its row tells what lacks."""
        underway = sum(
            order.one.disk_bytes for _, order in running.values() if order.stage == "convert"
        )
        try:
            keeper.make_room(one, underway)
        except PackError:
            return underway == 0
        return True

    def _order(self, course: Course) -> Order:
        assert course.next is not None
        run, root = self._current, self._work.folder.root
        machine = course.machine if course.next in AFTER_MEASURE else None
        shared = self._work.cache.shared.url if self._work.cache.shared else None
        return Order(
            course.next,
            course.one,
            self._work.plan,
            str(root),
            run.file.started,
            shared,
            machine=machine,
        )

    def _refusal(
        self, course: Course, order: Order, workers: Mapping[str, Any], keeper: Keeper
    ) -> Row | None:
        """The row of a cell that no worker can take, None where one can."""
        for name, needed in _resources(order, workers).items():
            largest = max((one["resources"].get(name, 0) for one in workers.values()), default=None)
            if largest is not None and needed > largest:
                error: PackError = no_room(
                    f"The stage {order.stage!r} needs {human_bytes(needed)} of {name}, and the "
                    f"worker with the most has {human_bytes(largest)}.",
                    "Start fewer workers on a machine, or a larger machine.",
                )
                return failed(self._work.folder, course.one, error, course.taken)
        if order.stage == "convert":
            try:
                keeper.make_room(course.one)
            except PackError as error:
                return failed(self._work.folder, course.one, error, course.taken)
        return None

    def _ended(self, courses: Courses, course: Course, order: Order, future: Any) -> Ended | None:
        """What a finished task means for its cell: its next stage, a new try, or its row."""
        answer = self._answer(course, future)
        if answer is not None and answer.error is None and not answer.moved:
            course.done(answer)
        courses.free(order, course, done=answer is not None and not answer.moved)
        if answer is not None and answer.error is not None:
            return course, self._failed(course, answer)
        if answer is None or answer.moved:
            course.tries += 1
            if course.tries >= MOST_TRIES:
                return course, self._failed(course, _given_up(order))
            if answer is not None:
                course.again_from_measure()
        if course.next is None:
            return course, None
        courses.again(course)
        return None

    def _answer(self, course: Course, future: Any) -> Answer | None:
        """What the worker answered; None where it died, or the task was taken back."""
        if future.status != "finished":
            return None
        answer = future.result()
        if not isinstance(answer, Answer):
            return Answer("", error="The worker gave no valid answer.", exit_code=1)
        return answer

    def _failed(self, course: Course, answer: Answer) -> Row:
        one, folder = course.one, self._work.folder
        text = str(answer.error)
        if answer.bug is not None:
            log = folder.bug_file(one.cell.id)
            log.write_text(answer.bug, encoding="utf-8", errors="backslashreplace")
            text = f"A bug in qwen-pack: {text}. {folder.below(log)} has the traceback."
        return not_done(one.cell, "failed", text, answer.exit_code, stages=course.taken)

    def _leave_the_lost(
        self, courses: Courses, running: dict[Any, tuple[Course, Order]]
    ) -> Iterator[Told]:
        """Measure anew what was measured on a machine that has been away for a minute."""
        hosts = {_host(address) for address in self._workers()}
        now = time.monotonic()
        # What is measured on a device of the lab is a whole package: any worker may drive it.
        pinned = [
            (future, course)
            for future, (course, order) in running.items()
            if course.host is not None and order.stage != "device"
        ]
        waited_for = {str(course.host) for _, course in pinned}
        self._gone = {host: self._gone.get(host, now) for host in waited_for if host not in hosts}
        for host in [host for host, since in self._gone.items() if now - since > _GONE_S]:
            del self._gone[host]
            courses.forget(host)
            yield Told(f"{host} is gone: its measurements are run again on another machine.")
            for future, course in pinned:
                if course.host == host:
                    course.again_from_measure()
                    future.cancel()
        # A worker that dies while it starts is given up by what watches over it.
        self._refill()
        if not hosts and not self._alone:
            yield Told("No worker is left; waiting for one.")
        self._alone = not hosts

    def _wait(self, running: dict[Any, Any]) -> None:
        """Until a task has ended, or a second has passed."""
        from distributed import wait

        if running and not any(one.done() for one in running):
            with suppress(TimeoutError), self._dask.as_current():
                wait(list(running), timeout=_TICK_S, return_when="FIRST_COMPLETED")

    def _refuse_without_scheduler(self) -> None:
        if self._dask.status not in ("running", "connecting"):
            raise unreachable(
                "The Dask scheduler has gone away.", "Run the same command again to continue."
            )

    # Any: Dask has no type for what it knows of a worker.
    def _workers(self) -> dict[str, Any]:
        """What the scheduler knows of every worker, by address."""
        workers: dict[str, Any] = self._dask.scheduler_info(n_workers=-1)["workers"]
        return workers


def _resources(order: Order, workers: Mapping[str, Any]) -> dict[str, float]:
    """What a unit takes of its worker: bytes of memory, the machine; bytes of disk, and the device
    that it alone can reach, where any worker says that it has such."""
    unit = order.one
    if order.stage == "device":
        name = f"device:{order.plan.on[unit.cell.target]}"
        return {name: 1} if any(_has(worker, name) for worker in workers.values()) else {}
    if order.stage == "convert":
        limited = any(_has(worker, "disk") for worker in workers.values())
        return {"memory": unit.build.memory, **({"disk": unit.disk_bytes} if limited else {})}
    if order.stage == "measure":
        return {"memory": unit.memory_bytes, "machine": 1}
    return {} if order.stage in ("fetch", "package") else {"memory": unit.memory_bytes}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _given_up(order: Order) -> Answer:
    text = (
        f"Workers died again and again in the stage {order.stage!r}, or lost its measurement: look "
        "at their logs, the system may have run out of memory."
    )
    return Answer("", error=text, exit_code=int(ExitCode.RESOURCE))


# Any: see _workers.
def _has(worker: dict[str, Any], resource: str) -> bool:
    return bool(worker["resources"].get(resource))


def _host(address: str) -> str:
    """The host of `tls://127.0.0.1:40123`."""
    return address.partition("://")[2].rpartition(":")[0].strip("[]")
