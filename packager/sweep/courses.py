"""The way of each cell through its stages, and which unit may run next. Knows no cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from packager.sweep.matrix import Planned
from packager.sweep.row import Stages
from packager.sweep.unit import Answer, Lane, Order, Stage, lanes, lanes_of

WHOLE: tuple[Stage, ...] = ("fetch", "convert", "measure", "quality", "package")
JUDGED: tuple[Stage, ...] = ("fetch", "convert", "gate")
AHEAD = 2
"""Units per worker that are handed out and may run anywhere: enough that none waits for the next
one, and few that a dying worker is blamed for."""


@dataclass(eq=False)
class Course:
    """One cell: which stages are left, what those before took, and where it was measured."""

    one: Planned
    stages: list[Stage]
    taken: Stages = field(default_factory=Stages)
    host: str | None = None
    machine: str | None = None
    tries: int = 0
    answer: Answer | None = None
    then: tuple[Stage, ...] = ()
    """What comes after the package."""

    def __post_init__(self) -> None:
        self.stages = [*self.stages, *self.then]

    @property
    def next(self) -> Stage | None:
        """The stage to do now; None where all are done."""
        return self.stages[0] if self.stages else None

    def done(self, answer: Answer) -> None:
        """The stage that was next is done."""
        stage = self.stages.pop(0)
        self.tries = 0
        self.answer = answer
        self.taken.add("quality" if stage == "gate" else stage, answer.seconds, answer.cached)
        if stage == "measure":
            self.host, self.machine = answer.host, answer.machine

    def again_from_measure(self) -> None:
        """The machine that has measured it is not there any more: it is measured anew elsewhere."""
        self.host = self.machine = None
        self.stages = [*WHOLE[WHOLE.index("measure") :], *self.then]


OrderOf = Callable[[Course], Order]


class Courses:
    """All cells on their way. Of units that may do the same work one runs first; the others find
    in the cache what they would have done."""

    def __init__(
        self,
        cells: Sequence[Planned],
        way: Sequence[Stage],
        then: Callable[[Planned], tuple[Stage, ...]] = lambda _: (),
    ) -> None:
        self._runnable = deque(Course(planned, list(way), then=then(planned)) for planned in cells)
        self._blocked: dict[Lane, list[Course]] = {}
        self._busy: set[Lane] = set()
        self._known: set[Lane] = set()
        self._hosts: dict[Lane, str] = {}

    @property
    def waiting(self) -> bool:
        """Whether any cell waits for its turn."""
        return bool(self._runnable or self._blocked)

    def ready(self, order_of: OrderOf, most: int) -> list[tuple[Course, Order]]:
        """Up to `most` units that may start now, the first cells first."""
        pairs: list[tuple[Course, Order]] = []
        while self._runnable and len(pairs) < most:
            course = self._runnable.popleft()
            order = order_of(course)
            new = [lane for lane in lanes_of(order) if lane not in self._known]
            busy = next((lane for lane in new if lane in self._busy), None)
            if busy is not None:
                self._blocked.setdefault(busy, []).append(course)
                continue
            self._busy.update(new)
            if order.stage == "measure" and course.host is None:
                # The same artifact for another target: its figures are there, on that machine.
                course.host = self._hosts.get(lanes("measure", course.one)[0])
            pairs.append((course, replace(order, lanes=tuple(new))))
        return pairs

    def free(self, order: Order, course: Course, done: bool = False) -> None:
        """A unit has ended. If it is `done`, what it left lies in the cache, and nobody waits for
        the like of it any more."""
        blocked = []
        for lane in order.lanes:
            self._busy.discard(lane)
            if done and order.stage != "device":
                self._known.add(lane)
            blocked += self._blocked.pop(lane, [])
        self._runnable.extendleft(reversed(blocked))
        if done and order.stage == "measure" and course.host is not None:
            self._hosts[lanes("measure", course.one)[0]] = course.host

    def again(self, course: Course) -> None:
        """A cell goes on: its next stage comes before the cells that have not begun."""
        self._runnable.appendleft(course)

    def forget(self, host: str) -> None:
        """A machine is gone: nothing waits for it."""
        gone = {lane for lane, there in self._hosts.items() if there == host}
        self._hosts = {lane: there for lane, there in self._hosts.items() if lane not in gone}
        self._known -= gone
