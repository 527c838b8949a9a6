"""A stage as a child process does it: its names, a job, and where its inputs lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.json_values import JsonObject, at, at_or_none, object_or_empty
from packager.pipeline.cache import Entry
from packager.sources.reread import Evidence

if TYPE_CHECKING:
    from packager.plan.plan import Plan

STAGES = {
    "fetch": "Get the weights",
    "convert": "Convert and quantize",
    "measure": "Smoke benchmark",
}
STAGES |= {"quality": "Quality gate", "package": "Hash and package"}


@dataclass(frozen=True, slots=True)
class Job:
    """A stage that a child process does: the job's dotted name and its arguments, in which `out` is
    added.

    A key of None means that only the work itself can tell what its inputs are: it runs every time.
    `row` is the stage that it is shown under, where that is not its own. `evidence` are the files
    of the checkpoint that it reads, which are compared with their recorded digests meanwhile.
    `by_start` says that its key tells how the engine is started. `opened_by` is the runtime whose
    engine opens what the stage leaves.
    """

    stage: str
    job: str
    arguments: JsonObject
    key: str | None = None
    needs_out: bool = True
    env: dict[str, str] | None = None
    row: str | None = None
    evidence: Evidence | None = None
    by_start: bool = False
    opened_by: str | None = None
    title: str | None = None
    """What the stage is called where that is not its usual name."""

    @property
    def shown(self) -> str:
        """The stage that its events belong to."""
        return self.row or self.stage


def checkpoint_of(fetched: Entry) -> Path:
    """Where the fetched checkpoint lies: below its entry in the cache, or outside (the hub's cache,
    a folder of the user's)."""
    return fetched.folder / str(fetched.facts["folder"])


def reference_of(fetched: Entry) -> tuple[Path, JsonObject]:
    """The folder that an artifact is compared with, and the facts of its files: the checkpoint that
    was converted. Of an adopted model it is the one that was named for it, else the tokenizer that
    was named, else the model's own texts."""
    facts = fetched.facts
    against = object_or_empty(facts, "against")
    if against:
        return Path(at(against, "folder", str)), against
    held = at_or_none(facts, "held_against", str)
    return checkpoint_of(fetched) / (held or ""), facts


def environment(plan: Plan) -> dict[str, str] | None:
    """Variables for the processes of a build that load the engine."""
    return plan.start.environment if plan.start else None
