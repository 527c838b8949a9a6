"""What a running build says: frozen events, yielded by the pipeline, shown by the CLI and the
TUI."""

from __future__ import annotations

from dataclasses import dataclass, field

from packager.json_values import JsonObject


@dataclass(frozen=True, slots=True)
class StageStarted:
    """Stage `stage` begins; it is number `index` (from 1) of `count`."""

    stage: str
    title: str
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class StageProgress:
    """`done` of `total` `unit` ("B" for bytes, else a word); total is None while unknown."""

    stage: str
    done: int
    total: int | None
    unit: str = "B"


@dataclass(frozen=True, slots=True)
class StageMemory:
    """What the process of a running stage has resident now, in bytes; comes several times a second,
    so it is a sign of life too."""

    stage: str
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class StageNote:
    """One line worth reading while the stage runs."""

    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class StageFinished:
    """The stage is done: seconds it took, whether the cache had it, and facts worth a row."""

    stage: str
    seconds: float
    cached: bool
    summary: str = ""
    facts: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageFailed:
    """The stage did not finish; the pipeline raises the same error next, unless what it belongs to
    is one of several (not `fatal`)."""

    stage: str
    message: str
    hint: str
    exit_code: int
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class AlternativeStarted:
    """Of several recipes that are compared, number `index` (from 1) of `count` begins; the stages
    that follow are its own."""

    runtime: str
    recipe: str
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class AlternativeFinished:
    """Its row of the comparison, as in the manifest's `alternatives[]`; `summary` says what was
    found, or why it ended."""

    runtime: str
    recipe: str
    summary: str
    row: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """All were tried; the one with `recipe` is kept, for `why`."""

    recipe: str
    why: str


_OfStage = StageStarted | StageProgress | StageMemory | StageNote | StageFinished | StageFailed
Event = _OfStage | AlternativeStarted | AlternativeFinished | Compared
