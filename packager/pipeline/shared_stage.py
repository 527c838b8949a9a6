"""A stage with a shared cache beside the local one: taken over from there, or done under a claim
and given away.

A shared cache that does not answer any more stops no build: a note says so, and the local cache
serves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from packager.errors import PackError
from packager.events import Event, StageNote, StageProgress
from packager.inspection import unsafe_artifact
from packager.package.manifest import FileEntry
from packager.pipeline import stages
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.job import Job
from packager.pipeline.shared_cache import LOOK_S, SHARED, Store

Work = Callable[[], Generator[Event, None, Entry]]
_OUT = "out/"


def shares(cache: BuildCache, job: Job) -> Store | None:
    """The store that a stage is shared by; None where it is not."""
    return cache.shared if job.key is not None and job.stage in SHARED else None


def pulled(cache: BuildCache, job: Job, store: Store) -> Generator[Event, None, Entry | None]:
    """The stage from the shared cache into the local one, every byte compared; None where it is
    not there or damaged."""
    assert job.key is not None
    try:
        if not store.names(job.stage, job.key):
            return None
        with cache.work_folder() as folder, closing(store.pull(job.stage, job.key, folder)) as work:
            done = 0
            while True:
                try:
                    done += next(work)
                except StopIteration as stop:
                    entry = stop.value
                    break
                yield StageProgress(job.shown, done, None)
            if entry is None:
                yield StageNote(
                    job.shown, "What the shared cache kept is damaged: it is made again."
                )
                return None
            unsafe = why_not_opened(job, folder, entry[1])
            if unsafe is not None:
                store.forget(job.stage, job.key)
                yield StageNote(
                    job.shown,
                    f"The shared cache's copy is not safe to open ({unsafe}): it is made again.",
                )
                return None
            cache.keep(job.stage, job.key, folder, entry[0])
    except PackError as error:
        yield StageNote(job.shown, error.message)
        return None
    # Looked at as anything in the cache is: a record from outside may name any place.
    return stages.look_up(cache, job)


def why_not_opened(job: Job, folder: Path, files: Sequence[FileEntry]) -> str | None:
    """Which file of what the stage left in `folder` no engine may open, and why not; None where
    there is none.

    A record proves the bytes, and not that they are harmless: who can write into a cache writes
    the record as well.
    """
    if job.opened_by is None:
        return None
    rows = [
        replace(row, path=row.path.removeprefix(_OUT)) for row in files if row.path.startswith(_OUT)
    ]
    return unsafe_artifact(folder / _OUT, rows, job.opened_by)


def done_once(
    cache: BuildCache, job: Job, store: Store, work: Work
) -> Generator[Event, None, Entry]:
    """The stage done here and given away, or taken over from whoever was at work on it already."""
    assert job.key is not None
    with store.claimed(job.stage, job.key) as claim:
        announced = False
        while not (yield from _won(job, claim.won)):
            if not announced:
                announced = True
                yield StageNote(job.shown, "another machine is working on this: waiting for it")
            time.sleep(LOOK_S)
            entry = yield from pulled(cache, job, store)
            if entry is not None:
                return entry
            yield StageProgress(job.shown, 0, None)
        # It may have been finished between the look and the claim.
        entry = yield from pulled(cache, job, store)
        if entry is not None:
            return entry
        with claim.renewed():
            entry = yield from work()
            yield from _given(job, store, entry)
    return entry


def _won(job: Job, won: Callable[[], bool]) -> Generator[Event, None, bool]:
    try:
        return won()
    except PackError as error:
        yield StageNote(job.shown, error.message)
        return True


def _given(job: Job, store: Store, entry: Entry) -> Generator[Event, None, None]:
    """What the stage left to the shared cache, unless it speaks of places of this machine."""
    assert job.key is not None
    elsewhere = job.stage == "fetch" and entry.facts.get("folder") != "out"
    if elsewhere or "not_possible" in entry.facts or "adapters" in job.arguments:
        return
    total, done = sum(row.size for row in entry.files), 0
    try:
        for size in store.push(job.stage, job.key, entry.folder, entry.facts, entry.files):
            done += size
            yield StageProgress(job.shown, done, total)
    except PackError as error:
        yield StageNote(job.shown, error.message)
