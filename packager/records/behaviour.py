"""What a package answered to tasks whose answers can be checked."""

from __future__ import annotations

import msgspec

from packager.records.base import Count, Number, Record, Tokens


class Passed(Record, frozen=True, kw_only=True):
    """How many of how many."""

    passed: Count = 0
    total: Count = 0


class Tried(Record, frozen=True, kw_only=True):
    """Tasks passed, in all and per pass, and failures by kind."""

    name: str = ""
    passed: Count | None = None
    total: Count | None = None
    passes: dict[str, Passed] = msgspec.field(default_factory=dict)
    failures: dict[str, Count] = msgspec.field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """The part that was passed; None where nothing was tried."""
        return self.passed / self.total if self.passed is not None and self.total else None


class Failure(Record, frozen=True, kw_only=True):
    """Why one turn of a task failed."""

    turn: Count | None = None
    kind: str = ""
    why: str = ""


class Task(Record, frozen=True, kw_only=True, rename={"pass_": "pass"}):
    """One task; `pass_` is the pass of the set that it belongs to (`pass` in JSON)."""

    id: str = ""
    pass_: str = ""
    passed: bool = False
    failures: tuple[Failure, ...] = ()


class LeftOut(Record, frozen=True, kw_only=True):
    """A task that was not asked."""

    id: str = ""
    why: str = ""


class Behaviour(Tried, frozen=True, kw_only=True):
    """The whole set."""

    set: str = ""
    set_sha256: str | None = None
    tried_at: str | None = None
    rung: str | None = None
    seconds: Number | None = None
    new_tokens: Tokens | None = None
    prompt_tokens: Tokens | None = None
    tasks: tuple[Task, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    neighbours: dict[str, Tried] = msgspec.field(default_factory=dict)
