"""A whole measurement: the threads found, then the model measured, each in a process of its own.

One way for every runtime. `run` is a generator of a child's messages, as `packager.process.run_job`
is.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from packager.errors import PackError
from packager.json_values import JsonObject, object_at, texts_at
from packager.process import JobResult, Note, Progress, Resident, Text, run_job
from packager.records import ThreadSearch

_Messages = Generator[Progress | Note | Text | Resident, None, JobResult]


def run(
    job: str,
    arguments: JsonObject,
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
    if object_at(arguments, "settings").get("threads"):
        return (yield from run_job(job, arguments, log, env, watch=watch))
    search = yield from _search(arguments, log, env, watch)
    result = yield from _measured(job, arguments, search, log, env, watch)
    if (
        search is not None
        and search.threads.noisy
        and not result.value.get("noisy", True)
        and len(search.threads.candidates) > 1
    ):
        yield Note("The search for the number of threads was disturbed: searching again")
        again = yield from _search(arguments, log, env, watch)
        if again is not None and not again.threads.noisy:
            if again.threads.threads != search.threads.threads:
                result = yield from _measured(job, arguments, again, log, env, watch)
            search = _Search(again.threads, _better(search.load, again.load))
    return JobResult(_with_search(result.value, search), result.seconds, result.peak_bytes)


@dataclass(frozen=True, slots=True)
class _Load:
    """The first load of a search: seconds, and whether the page cache had forgotten the files
    (`cached_share` of them was still there; None where the system does not tell)."""

    seconds: float = 0.0
    cold: bool = False
    cached_share: float | None = None


@dataclass(frozen=True, slots=True)
class _Search:
    """What a search for the number of threads found, and its first load."""

    threads: ThreadSearch
    load: _Load


def _with_search(value: JsonObject, search: _Search | None) -> JsonObject:
    """The measurement's JSON with `thread_search` and `load_cold_s`; what could not be run here
    stays as it is."""
    if search is None or "not_measured" in value:
        return {**value, "thread_search": None, "load_cold_s": None}
    load, left_out = search.load, texts_at(value, "left_out")
    if not load.cold:
        why = "this system does not say what its page cache holds"
        if load.cached_share is not None:
            why = f"the page cache kept {load.cached_share:.0%} of the files"
        left_out.append(f"cold load: {why}")
    return {
        **value,
        "thread_search": search.threads.to_json(),
        "load_cold_s": load.seconds if load.cold else None,
        "left_out": left_out,
    }


def _search(
    arguments: JsonObject, log: Path, env: dict[str, str] | None, watch: bool
) -> Generator[Any, None, _Search | None]:
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
    load = msgspec.convert(result.value["load_cold"], _Load)
    return _Search(ThreadSearch.from_json(result.value), load)


def _measured(
    job: str,
    arguments: JsonObject,
    search: _Search | None,
    log: Path,
    env: dict[str, str] | None,
    watch: bool,
) -> _Messages:
    threads = search.threads.threads if search else None
    settings = {**object_at(arguments, "settings"), "threads": threads}
    return (yield from run_job(job, {**arguments, "settings": settings}, log, env, watch=watch))


def _better(first: _Load, second: _Load) -> _Load:
    """The cold load that was one, and the quicker of two: others can only slow it down."""
    cold = [load for load in (second, first) if load.cold]
    return min(cold, key=lambda load: load.seconds) if cold else first
