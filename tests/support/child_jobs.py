"""Jobs of engines in child processes, to their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.process import JobResult, Note, Progress, run_job
from tests.conftest import REPOSITORY


def finish(job: str, log: Path, **arguments: Any) -> tuple[JobResult, list[Progress | Note]]:
    """What a job returns, and what it said on the way. Raises what the job raises."""
    messages: list[Progress | Note] = []
    # Children do not look into the current folder for modules, where the jobs of the tests lie, and
    # fixtures of a module come before those of a test, which would say so.
    work = run_job(job, arguments, log, {"PYTHONPATH": str(REPOSITORY)})
    while True:
        try:
            messages.append(next(work))
        except StopIteration as stop:
            return stop.value, messages
