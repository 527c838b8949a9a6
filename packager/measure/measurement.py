"""A whole measurement: the threads found, then the model measured, each in a process of its own.

One way for every runtime. `run` is a generator of a child's messages, as `packager.process.run_job`
is.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from packager.errors import PackError
from packager.process import JobResult, Note, Progress, Resident, Text, run_job

_Messages = Generator[Progress | Note | Text | Resident, None, JobResult]


def run(
    job: str,
    arguments: dict[str, Any],
    log: Path,
    env: dict[str, str] | None = None,
    watch: bool = False,
) -> _Messages:
    """Measure with the number of threads of the settings, or with the fastest one, which is
    searched for first.

    The result's value is that of `job` (packager.measure.benchmark:measure) with `thread_search`,
    and `load_cold_s` where the page cache could be emptied; peak memory is the measured process's
    alone. A search that others disturbed is repeated once when the measurement after it was not
    disturbed, and where it then finds another number, so is the measurement.
    """
    settings = arguments["settings"]
    if settings.get("threads"):
        return (yield from run_job(job, arguments, log, env, watch=watch))
    found = yield from _search(arguments, log, env, watch)
    result = yield from _measured(job, arguments, found, log, env, watch)
    if (
        found is not None
        and found["noisy"]
        and not result.value.get("noisy", True)
        and len(found["candidates"]) > 1
    ):
        yield Note("The search for the number of threads was disturbed: searched again")
        again = yield from _search(arguments, log, env, watch)
        if again is not None and not again["noisy"]:
            if again["threads"] != found["threads"]:
                result = yield from _measured(job, arguments, again, log, env, watch)
            found = {**again, "load_cold": _better(found["load_cold"], again["load_cold"])}
    value = {**result.value, "thread_search": None, "load_cold_s": None}
    if found is not None:
        cold = found.pop("load_cold")
        value["load_cold_s"] = cold["seconds"] if cold.get("cold") else None
        value["thread_search"] = found
        if not cold.get("cold"):
            held = cold.get("cached_share")
            why = (
                "this system tells nothing of its page cache"
                if held is None
                else f"the page cache kept {held:.0%} of the files"
            )
            value["left_out"] = [*value.get("left_out", []), f"cold load: {why}"]
    return JobResult(value, result.seconds, result.peak_bytes)


def _search(
    arguments: dict[str, Any], log: Path, env: dict[str, str] | None, watch: bool
) -> Generator[Any, None, dict[str, Any] | None]:
    kept = {name: arguments[name] for name in ("session", "artifact", "settings", "prompt_tokens")}
    try:
        result = yield from run_job(
            "packager.measure.thread_search:search",
            kept,
            log.with_name(f"{log.stem}-threads.log"),
            env,
            watch=watch,
        )
    except PackError:
        # Whatever is wrong with the model, the measurement says it in its own words; where only the
        # search failed, the engine chooses.
        return None
    return result.value


def _measured(
    job: str,
    arguments: dict[str, Any],
    found: dict[str, Any] | None,
    log: Path,
    env: dict[str, str] | None,
    watch: bool,
) -> _Messages:
    settings = {**arguments["settings"], "threads": found["threads"] if found else None}
    return (yield from run_job(job, {**arguments, "settings": settings}, log, env, watch=watch))


def _better(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The cold load that was one, and the quicker of two: others can only slow it down."""
    rows = [row for row in (second, first) if row.get("cold")]
    return min(rows, key=lambda row: float(row["seconds"])) if rows else first
