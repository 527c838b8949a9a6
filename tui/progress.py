"""A running build as one frozen value, advanced by the pipeline's events; the screen draws whatever
it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from packager.events import (
    AlternativeFinished,
    AlternativeStarted,
    Compared,
    Event,
    StageFailed,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.units import human_bytes, human_seconds

Status = Literal["waiting", "running", "done", "cached", "failed", "cancelled"]
MARKS: dict[Status, str] = {
    "waiting": "○",
    "running": "●",
    "done": "✓",
    "cached": "✓",
    "failed": "✗",
    "cancelled": "–",
}
_MOST_SAMPLES = 400
_TELLING = 0.05
"""The share of a stage from which on its pace says when it ends."""


def roughly(seconds: float) -> str:
    """A time that is foretold, no finer than it is known: `20 s`, `4 min`, `1 h 20 min`."""
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


@dataclass(frozen=True, slots=True)
class Stage:
    """One row. Times are seconds of the screen's clock; `done` of `total` `unit` as the event
    says."""

    name: str
    title: str
    status: Status = "waiting"
    started: float | None = None
    seconds: float | None = None
    done: int = 0
    total: int | None = None
    unit: str = "B"
    says: str = ""
    expected: float | None = None
    """Seconds that were foretold of it; None where nothing is known."""

    @property
    def share(self) -> float | None:
        """How far it is, 0 to 1; None while nobody knows."""
        if self.status in ("done", "cached"):
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None

    def left(self, now: float) -> float | None:
        """Seconds until its end at the pace so far; None while nobody knows, and before enough of
        it is done to tell."""
        share = self.share
        if self.started is None or share is None or not _TELLING <= share < 1:
            return None
        return (now - self.started) * (1 - share) / share

    def elapsed(self, now: float) -> float:
        """Seconds since its start; 0 before it."""
        return 0.0 if self.started is None else max(0.0, now - self.started)

    def amount(self) -> str:
        """`310 MB of 1.19 GB`, `3 of 5 answers`, or what it last said."""
        if self.status != "running" or not (self.done or self.total):
            return self.says
        if self.unit == "B":
            return (
                f"{human_bytes(self.done)} of {human_bytes(self.total)}"
                if self.total
                else human_bytes(self.done)
            )
        return (
            f"{self.done} of {self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"
        )

    def time(self, now: float) -> str:
        """How long it took, or has been running."""
        if self.status == "cached":
            return "cached"
        if self.status == "waiting":
            return f"~ {roughly(self.expected)}" if self.expected else ""
        if self.seconds is not None:
            return human_seconds(self.seconds)
        return human_seconds(max(0.0, now - self.started)) if self.started is not None else ""


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds until the end; `at_least` where the stage at work already takes longer than was
    foretold, so that its own part is unknown."""

    seconds: float
    at_least: bool = False

    def __str__(self) -> str:
        if self.at_least:
            return f"longer than foretold, at least {roughly(self.seconds)} left"
        return f"about {roughly(self.seconds)} left"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a build ended: the stage (empty where it never came to one), a sentence and the way
    on."""

    stage: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The whole build. `memory` are bytes the running stage had resident, newest last; `lines` what
    was said, oldest first."""

    stages: tuple[Stage, ...]
    memory: tuple[int, ...] = ()
    lines: tuple[str, ...] = ()
    failure: Failure | None = None
    state: Literal["running", "stopping", "cancelled", "failed", "done"] = "running"

    @property
    def running(self) -> Stage | None:
        """The stage at work."""
        return next((stage for stage in self.stages if stage.status == "running"), None)

    @property
    def busy(self) -> bool:
        """Whether anything is still at work."""
        return self.state in ("running", "stopping")

    def left(self, now: float) -> Left | None:
        """What is left of the whole build: of the running stage by its own pace, else as foretold,
        of those that wait as foretold, corrected by what the others took. None while nobody knows,
        and after the end."""
        if self.running is None or not self.busy:
            return None
        pace, seconds, late = self._pace(now), 0.0, False
        for stage in self.stages:
            if stage.status == "waiting":
                if stage.expected is None:
                    return None
                seconds += stage.expected * pace
            elif stage.status == "running":
                own = stage.left(now)
                if own is None:
                    if stage.expected is None:
                        return None
                    own = stage.expected * pace - stage.elapsed(now)
                    late = own < 0 < stage.expected
                seconds += max(0.0, own)
        return Left(seconds, late)

    def _pace(self, now: float) -> float:
        """How long the stages so far took, as a multiple of what was foretold; 1 before anything is
        known. What came from the cache took no time, and says nothing of the others."""
        taken = expected = 0.0
        for stage in self.stages:
            if not stage.expected:
                continue
            if stage.status == "done" and stage.seconds is not None:
                taken, expected = taken + stage.seconds, expected + stage.expected
            left = stage.left(now) if stage.status == "running" else None
            if left is not None:
                taken, expected = taken + stage.elapsed(now) + left, expected + stage.expected
        return taken / expected if expected else 1.0


def before(titles: Mapping[str, str], expected: Mapping[str, float] | None = None) -> Progress:
    """A build that has not begun: a waiting row per stage, `titles` by name in order; `expected`
    are the seconds that are foretold of those of which anything is known."""
    known = expected or {}
    return Progress(
        tuple(Stage(name, title, expected=known.get(name)) for name, title in titles.items())
    )


def advance(progress: Progress, event: Event, now: float) -> Progress:
    """The build after the event; `now` is the screen's clock, seconds."""
    match event:
        case StageStarted():
            line = f"[{event.index}/{event.count}] {event.title}"
            return _with(
                progress,
                event.stage,
                line,
                status="running",
                started=now,
                seconds=None,
                done=0,
                total=None,
                says="",
            )
        case StageProgress():
            return _with(
                progress, event.stage, None, done=event.done, total=event.total, unit=event.unit
            )
        case StageMemory():
            # A process that begins or ends has nothing resident: no measurement.
            if not event.resident_bytes:
                return progress
            return replace(
                progress, memory=(*progress.memory, event.resident_bytes)[-_MOST_SAMPLES:]
            )
        case StageNote():
            return _with(progress, event.stage, event.text, says=event.text)
        case StageFinished():
            status: Status = "cached" if event.cached else "done"
            return _with(
                progress,
                event.stage,
                None,  # its row says it
                status=status,
                seconds=event.seconds,
                says=_with_unit(event.stage, event.summary),
            )
        case StageFailed():
            failed = _with(
                progress,
                event.stage,
                f"failed: {event.message}",
                status="failed",
                says=event.message,
            )
            if not event.fatal:
                return failed
            return replace(
                failed, failure=Failure(event.stage, event.message, event.hint), state="failed"
            )
        case AlternativeStarted():
            line = f"{event.recipe} with {event.runtime} ({event.index} of {event.count})"
            fresh = tuple(
                Stage(stage.name, stage.title, expected=stage.expected) for stage in progress.stages
            )
            return replace(progress, stages=fresh, memory=(), lines=(*progress.lines, line))
        case AlternativeFinished():
            return replace(progress, lines=(*progress.lines, f"{event.recipe}: {event.summary}"))
        case Compared():
            return replace(progress, lines=(*progress.lines, f"kept: {event.recipe}, {event.why}"))


_OF = {"fetch": "of weights", "convert": "of model files"}
_SIZE = re.compile(r"[\d.]+ [kMGT]?B")


def _with_unit(stage: str, summary: str) -> str:
    """What a stage left; a size alone does not say of what."""
    return f"{summary} {_OF[stage]}" if stage in _OF and _SIZE.fullmatch(summary) else summary


def stopped(progress: Progress, failure: Failure | None, now: float) -> Progress:
    """The build after it ended without a package: cancelled, or failed where no event said so."""
    if failure is None:
        rows = tuple(
            replace(
                stage, status="cancelled", seconds=now - (stage.started or now), says="cancelled"
            )
            if stage.status == "running"
            else stage
            for stage in progress.stages
        )
        return replace(
            progress, stages=rows, lines=(*progress.lines, "cancelled"), state="cancelled"
        )
    if progress.failure is not None:
        return progress
    return replace(
        progress,
        failure=failure,
        lines=(*progress.lines, f"failed: {failure.message}"),
        state="failed",
    )


def _with(progress: Progress, name: str, line: str | None, **fields: object) -> Progress:
    rows = tuple(
        replace(stage, **fields) if stage.name == name else stage  # type: ignore[arg-type]
        for stage in progress.stages
    )
    lines = progress.lines if line is None else (*progress.lines, line)
    return replace(progress, stages=rows, lines=lines)
