"""How one stage runs: from the cache with its bytes compared, or in a child process and then into
the cache; what fails becomes an event and an error."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from packager.digests import key_of
from packager.errors import PackError, bad_input, from_foreign
from packager.events import (
    Event,
    StageFailed,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.files import tree_bytes
from packager.json_values import JsonObject, at, at_or_none, objects_at
from packager.measure import measurement as harness
from packager.pipeline import stages
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.job import STAGES, Job
from packager.pipeline.shared_stage import done_once, pulled, shares, why_not_opened
from packager.process import JobResult, Note, Progress, Resident, run_job
from packager.sources import reread
from packager.sources.adapters import inputs_of
from packager.units import human_bytes

# Whoever waits for a build goes on using the machine; only what is measured must run as it will run
# later.
_NICENESS = 10

Events = Generator[Event, None, Entry]
Result = TypeVar("Result")


def kept(
    cache: BuildCache, job: Job, whole: Callable[[Entry], bool] = lambda entry: True
) -> Generator[Event, None, Entry | None]:
    """What the cache holds of a stage, its bytes compared with its record; None, after a note and
    gone, where that is not right.

    Large files are left out where `whole` says that nobody will read them.
    """
    entry = stages.look_up(cache, job)
    if job.key is None:
        return entry
    if entry is None and (store := shares(cache, job)) is not None:
        entry = yield from pulled(cache, job, store)
    wrong = cache.flaw(job.stage, job.key) if entry is None else None
    if entry is not None:
        wrong = yield from _compared(
            job.shown, cache.compare(entry, None if whole(entry) else reread.SMALL), entry
        )
        if wrong is None and (unsafe := why_not_opened(job, entry.folder, entry.files)) is not None:
            wrong = f"is not safe to open ({unsafe})"
    if wrong is None:
        return entry
    yield StageNote(job.shown, f"What the cache kept {wrong}: it is made again.")
    cache.discard(job.stage, job.key)
    return None


def _compared(
    shown: str, work: Generator[int, None, str | None], entry: Entry
) -> Generator[Event, None, str | None]:
    """The comparison of a kept stage with its record, as progress; returns what is wrong."""
    total, done = sum(row.size for row in entry.files), 0
    with closing(work):
        while True:
            try:
                done += next(work)
            except StopIteration as stop:
                return None if stop.value is None else str(stop.value)
            yield StageProgress(shown, min(done, total), total)


def work(cache: BuildCache, job: Job) -> Events:
    """A job in a child process, and what it left into the cache; where that is shared, only one
    machine does it."""
    store = shares(cache, job)
    if store is None:
        return (yield from _work(cache, job))
    return (yield from done_once(cache, job, store, lambda: _work(cache, job)))


def _work(cache: BuildCache, job: Job) -> Events:
    with cache.work_folder() as folder:
        arguments = (
            {**job.arguments, "out": str(folder / "out")} if job.needs_out else job.arguments
        )
        result = yield from compared_child(job, arguments, cache.log(job.shown))
        facts = {
            **_relative(result.value, folder),
            "seconds": result.seconds,
            "peak_bytes": result.peak_bytes,
        }
        # What could not be run may be run tomorrow, with no input changed that we know: that is
        # asked again each time.
        if "not_measured" in facts or "not_possible" in facts:
            return Entry(folder, facts)
        entry = yield from _keeping(cache, job, folder, facts)
    # Before an engine opens it: part of what was written comes from the checkpoint.
    unsafe = why_not_opened(job, entry.folder, entry.files)
    if unsafe is not None:
        cache.drop(entry)
        raise bad_input(
            f"What was made of the checkpoint is not safe to open: its file {unsafe}.",
            "Take the checkpoint from its publisher.",
        )
    return entry


def _keeping(cache: BuildCache, job: Job, work: Path, facts: JsonObject) -> Events:
    """The output of a stage into the cache: hashed, flushed, and named."""
    total, done = tree_bytes(work), 0
    with closing(cache.keeping(job.stage, job.key or _unkeyed(facts), work, facts)) as keeping:
        while True:
            try:
                done += next(keeping)
            except StopIteration as stop:
                entry: Entry = stop.value
                return entry
            yield StageProgress(job.shown, min(done, total), total)


def compared_child(job: Job, arguments: JsonObject, log: Path) -> Generator[Event, None, JobResult]:
    """A job in a child process, while what it reads is compared with the digests that the package
    will name."""
    with (
        reread.comparing(job.evidence) as comparison,
        closing(_child(job, arguments, log)) as child,
    ):
        while True:
            comparison.check()
            try:
                yield next(child)
            except StopIteration as stop:
                result: JobResult = stop.value
                break
            except PackError:
                # Damage may be why it failed: then that is what there is to say.
                comparison.check()
                raise
        while comparison.reading():
            yield StageProgress(job.shown, comparison.done, comparison.total)
        comparison.check()
    return result


def _child(job: Job, arguments: JsonObject, log: Path) -> Generator[Event, None, JobResult]:
    # What is measured runs as it will run later; everything else leaves the machine to others.
    if job.stage == "measure":
        work = harness.run(job.job, arguments, log, job.env, watch=True)
    else:
        work = run_job(job.job, arguments, log, job.env, watch=True, niceness=_NICENESS)
    try:
        while True:
            try:
                message = next(work)
            except StopIteration as stop:
                result: JobResult = stop.value
                return result
            if isinstance(message, Progress):
                yield StageProgress(job.shown, message.done, message.total, message.unit)
            elif isinstance(message, Note):
                yield StageNote(job.shown, message.text)
            elif isinstance(message, Resident):
                yield StageMemory(job.shown, message.bytes)
    finally:
        work.close()


def copying(writer: Generator[tuple[int, int], None, Result]) -> Generator[Event, None, Result]:
    """A generator of (bytes done, bytes in all) as the progress of the package; returns what it
    returns."""
    with closing(writer):
        while True:
            try:
                done, total = next(writer)
            except StopIteration as stop:
                finished: Result = stop.value
                return finished
            yield StageProgress("package", done, total)


@contextmanager
def failures(stage: str) -> Iterator[list[tuple[StageFailed, BaseException]]]:
    """Collect the sentence of a failed stage, so that its event can be yielded before the error is
    raised."""
    failed: list[tuple[StageFailed, BaseException]] = []
    try:
        yield failed
    except Exception as error:
        known = from_foreign(error)
        if known is None:
            raise
        named = PackError(f"{STAGES[stage]}: {known.message}", known.hint, known.exit_code)
        failed.append((StageFailed(stage, known.message, known.hint, int(known.exit_code)), named))


def announce(stage: str, title: str | None = None) -> Iterator[Event]:
    """The event that a stage has started, under its usual name unless it has another."""
    names = list(STAGES)
    yield StageStarted(stage, title or STAGES[stage], names.index(stage) + 1, len(names))


def _unkeyed(facts: JsonObject) -> str:
    """The key of a stage whose inputs only its work has told."""
    return key_of(inputs_of(facts) if facts.get("adapters") else facts.get("files"))


def _relative(facts: JsonObject, work: Path) -> JsonObject:
    """A folder inside the work folder is kept relative to it: the work folder is renamed when it is
    done. See job.checkpoint_of."""
    folder = at_or_none(facts, "folder", str)
    if folder and Path(folder).is_relative_to(work):
        return {**facts, "folder": Path(folder).relative_to(work).as_posix()}
    return facts


def summary(facts: JsonObject) -> str:
    """What the stage's row says behind its time."""
    if "not_measured" in facts:
        return f"not measured: {facts['not_measured']}"
    if facts.get("query_ms") is not None:
        query_ms = at(facts, "query_ms", float)
        speed = f"{1000 / at(facts, 'ttft_ms', float):.3g} texts/s, query in {query_ms:.0f} ms"
        return f"{speed}, noisy" if facts["noisy"] else speed
    if "decode_tps" in facts:
        first_ms = at(facts, "ttft_ms", float)
        speed = f"{at(facts, 'decode_tps', float):.1f} tok/s, first token after {first_ms:.0f} ms"
        return f"{speed}, noisy" if facts["noisy"] else speed
    if facts.get("files"):
        return human_bytes(sum(at(file, "size", int) for file in objects_at(facts, "files")))
    return human_bytes(at(facts, "artifact_bytes", int)) if "artifact_bytes" in facts else ""


def age(facts: JsonObject) -> str:
    """The day of a measurement that was not made just now."""
    return f"on {str(facts['measured_at'])[:10]}: " if "measured_at" in facts else ""
