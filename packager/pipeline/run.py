"""A build, read from top to bottom: fetch, convert, measure, quality, package.

`run(plan)` is a generator of frozen events that prints nothing and returns the Package. Work
happens in child processes; closing the generator at any point ends them and leaves the finished
stages in the cache, never a package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from packager.chat import speech
from packager.chat.speech import Speech
from packager.errors import ExitCode, PackError, from_foreign
from packager.events import (
    Event,
    StageFailed,
    StageFinished,
    StageMemory,
    StageNote,
    StageProgress,
    StageStarted,
)
from packager.files import tree_bytes
from packager.measure import measurement as harness
from packager.package import package as package_module
from packager.package import shelf
from packager.package.package import Package
from packager.pipeline import packaging as package
from packager.pipeline import quality_stage as gate
from packager.pipeline import stages
from packager.pipeline.cache import BuildCache, Entry, key_of
from packager.pipeline.stages import STAGES, Job, Made
from packager.plan.plan import Plan
from packager.process import JobResult, Note, Progress, Resident, run_job
from packager.quality import verdict
from packager.records import Quality
from packager.sources import reread
from packager.sources.adapters import inputs_of
from packager.units import human_bytes

__all__ = ["STAGES", "deliver", "make", "run", "run_alone"]

# Whoever waits for a build goes on using the machine; only what is measured must run as it will run
# later.
_NICENESS = 10

_Events = Generator[Event, None, Entry]
Result = TypeVar("Result")


def run(plan: Plan, cache: BuildCache | None = None) -> Generator[Event, None, Package]:
    """Build the plan; yield events and return the finished package.

    Raises PackError as soon as a stage fails, after the StageFailed that says the same.
    """
    with (cache or BuildCache()).holding() as held:
        made = yield from make(plan, held)
        return (yield from deliver(plan, made))


def make(plan: Plan, cache: BuildCache) -> Generator[Event, None, Made]:
    """Everything before the package: the weights, the artifact, its figures, what it lost."""
    # The weights are read where they are converted, the artifact in every build: those bytes are
    # compared.
    fetched = yield from _stage(
        cache,
        stages.fetch(plan),
        lambda entry: not stages.is_kept(cache, stages.convert(plan, entry)),
    )
    notes = yield from _speech(plan, fetched)
    convert = stages.convert(plan, fetched)
    converted = yield from _stage(cache, convert, notes=notes)
    measure = stages.measure(plan, converted, convert)
    measured = yield from _stage(cache, measure)
    quality = yield from _quality(cache, plan, fetched, converted, convert, measured)
    return Made(fetched, converted, measured, stages.keys_of(convert, measure, measured), quality)


def deliver(
    plan: Plan, made: Made, losers: Sequence[dict[str, Any]] = ()
) -> Generator[Event, None, Package]:
    """The package of what was made; `losers` are what was built and measured beside it, for its
    manifest."""
    yield from _announce("package")
    started = time.monotonic()
    with _failures("package") as failed:
        stages.descriptions(made.fetched).check()
        build_key = stages.package_key(plan, made.keys, losers)
        finished = yield from _copying(package_module.reuse(plan.out, build_key))
        cached = isinstance(finished, Package)
        if not isinstance(finished, Package):
            if finished is not None:
                yield StageNote(
                    "package",
                    f"The package that is there is damaged ({finished}): it is written again.",
                )
            finished = yield from _copying(package.write(plan, build_key, made, losers))
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert isinstance(finished, Package)
    size = sum(entry.size for entry in finished.manifest.files)
    summary = f"{len(finished.manifest.files)} files, {human_bytes(size)}"
    yield StageFinished(
        "package", time.monotonic() - started, cached, summary, {"package": str(finished.path)}
    )
    shelf.remember(finished.path)
    return finished


def run_alone(job: Job, log: Path) -> Generator[Event, None, JobResult]:
    """One stage outside a build, with the events of a build of one stage; its result is not
    cached."""
    yield StageStarted(job.stage, STAGES[job.stage], 1, 1)
    result: JobResult | None = None
    with _failures(job.stage) as failed:
        result = yield from _compared_child(job, job.arguments, log)
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert result is not None
    yield StageFinished(job.stage, result.seconds, False, _summary(result.value), result.value)
    return result


def _speech(plan: Plan, fetched: Entry) -> Generator[Event, None, Sequence[str]]:
    """What is worth a note about templates and ends of turn; what cannot be rendered ends the build
    here."""
    spoken: Speech | None = None
    with _failures("convert") as failed:
        spoken = speech.of_folder(stages.checkpoint_of(fetched), plan.profile)
    if failed:
        yield from _announce("convert")
        yield failed[0][0]
        raise failed[0][1]
    assert spoken is not None
    return spoken.notes


def _stage(
    cache: BuildCache,
    job: Job,
    whole: Callable[[Entry], bool] = lambda entry: True,
    notes: Sequence[str] = (),
) -> _Events:
    """One stage from the cache, or in a child process and then into the cache. `whole`: see
    `_kept`; `notes` are said of it first."""
    yield from _announce(job.stage)
    for note in notes:
        yield StageNote(job.shown, note)
    started = time.monotonic()
    entry = yield from _kept(cache, job, whole)
    if entry is not None:
        yield StageFinished(
            job.stage,
            time.monotonic() - started,
            True,
            _age(entry.facts) + _summary(entry.facts),
            entry.facts,
        )
        return entry
    with _failures(job.stage) as failed:
        entry = yield from _work(cache, job)
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert entry is not None
    yield StageFinished(
        job.stage, time.monotonic() - started, False, _summary(entry.facts), entry.facts
    )
    return entry


def _kept(
    cache: BuildCache, job: Job, whole: Callable[[Entry], bool] = lambda entry: True
) -> Generator[Event, None, Entry | None]:
    """What the cache holds of a stage, its bytes compared with its record; None, after a note and
    gone, where that is not right.

    Large files are left out where `whole` says that nobody will read them.
    """
    entry = stages.look_up(cache, job)
    if job.key is None:
        return entry
    wrong = cache.flaw(job.stage, job.key) if entry is None else None
    if entry is not None:
        wrong = yield from _compared(
            job.shown, cache.compare(entry, None if whole(entry) else reread.SMALL), entry
        )
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


def _quality(
    cache: BuildCache, plan: Plan, fetched: Entry, converted: Entry, convert: Job, measured: Entry
) -> Generator[Event, None, Quality]:
    """The artifact against the unquantized checkpoint. What was compared is kept, also where it
    stops the build."""
    yield from _announce("quality")
    started = time.monotonic()
    cached, quality = False, gate.not_here(measured)
    with _failures("quality") as failed:
        if quality is None:
            why_not = gate.why_not(plan)
            job = gate.compare(plan, fetched, converted, convert, why_not is None)
            found = yield from _complete(cache, job, why_not is None)
            if found is None and why_not is None:
                kept, why_not = yield from _reference(cache, gate.reference(plan, fetched))
                job = gate.compare(plan, fetched, converted, convert, why_not is None, kept)
                found = yield from _complete(cache, job, why_not is None)
            cached = found is not None
            found = found or (yield from _work(cache, job))
            verdict.refuse_incomplete(found.facts, why_not is None)
            quality = gate.result(plan, found.facts, why_not)
            verdict.check(quality)
    if failed:
        yield failed[0][0]
        raise failed[0][1]
    assert quality is not None
    yield StageFinished(
        "quality",
        time.monotonic() - started,
        cached,
        verdict.summary(quality),
        quality.to_json(),
    )
    return quality


def _complete(
    cache: BuildCache, job: Job, divergence: bool
) -> Generator[Event, None, Entry | None]:
    """What was compared before; None where it lacks what a verdict stands on."""
    entry = yield from _kept(cache, job)
    lacking = None if entry is None else verdict.lacking(entry.facts, divergence)
    if entry is None or lacking is None:
        return entry
    yield StageNote(
        job.shown, f"What the cache kept of the comparison lacks {lacking}: it is made again."
    )
    cache.drop(entry)
    return None


def _reference(
    cache: BuildCache, job: Job
) -> Generator[Event, None, tuple[Entry | None, str | None]]:
    """What the unquantized checkpoint says; else the reason why that cannot be had on this machine,
    which stops no build."""
    try:
        kept = (yield from _kept(cache, job)) or (yield from _work(cache, job))
    except PackError as error:
        if error.exit_code is not ExitCode.RESOURCE:
            raise
        return None, error.message
    why_not = kept.facts.get("not_possible") or kept.facts.get("says_nothing")
    return (None, str(why_not)) if why_not else (kept, None)


def _work(cache: BuildCache, job: Job) -> _Events:
    """A job in a child process, and what it left into the cache."""
    with cache.work_folder() as work:
        arguments = {**job.arguments, "out": str(work / "out")} if job.needs_out else job.arguments
        result = yield from _compared_child(job, arguments, cache.log(job.shown))
        facts = {
            **_relative(result.value, work),
            "seconds": result.seconds,
            "peak_bytes": result.peak_bytes,
        }
        # What could not be run may be run tomorrow, with no input changed that we know: that is
        # asked again each time.
        if "not_measured" in facts or "not_possible" in facts:
            return Entry(work, facts)
        return (yield from _keeping(cache, job, work, facts))


def _keeping(cache: BuildCache, job: Job, work: Path, facts: dict[str, Any]) -> _Events:
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


def _unkeyed(facts: dict[str, Any]) -> str:
    """The key of a stage whose inputs only its work has told."""
    return key_of(inputs_of(facts) if facts.get("adapters") else facts.get("files"))


def _compared_child(
    job: Job, arguments: dict[str, Any], log: Path
) -> Generator[Event, None, JobResult]:
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


def _child(job: Job, arguments: dict[str, Any], log: Path) -> Generator[Event, None, JobResult]:
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


def _copying(writer: Generator[tuple[int, int], None, Result]) -> Generator[Event, None, Result]:
    with closing(writer):
        while True:
            try:
                done, total = next(writer)
            except StopIteration as stop:
                finished: Result = stop.value
                return finished
            yield StageProgress("package", done, total)


@contextmanager
def _failures(stage: str) -> Iterator[list[tuple[StageFailed, BaseException]]]:
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


def _announce(stage: str) -> Iterator[Event]:
    names = list(STAGES)
    yield StageStarted(stage, STAGES[stage], names.index(stage) + 1, len(names))


def _relative(facts: dict[str, Any], work: Path) -> dict[str, Any]:
    """A folder inside the work folder is kept relative to it: the work folder is renamed when it is
    done. See stages.checkpoint_of."""
    folder = facts.get("folder")
    if folder and Path(folder).is_relative_to(work):
        return {**facts, "folder": Path(folder).relative_to(work).as_posix()}
    return facts


def _summary(facts: dict[str, Any]) -> str:
    """What the stage's row says behind its time."""
    if "not_measured" in facts:
        return f"not measured: {facts['not_measured']}"
    if "decode_tps" in facts:
        found = f"{facts['decode_tps']:.1f} tok/s, first token after {facts['ttft_ms']:.0f} ms"
        return f"{found}, noisy" if facts["noisy"] else found
    if facts.get("files"):
        return human_bytes(sum(file["size"] for file in facts["files"]))
    return human_bytes(facts["artifact_bytes"]) if "artifact_bytes" in facts else ""


def _age(facts: dict[str, Any]) -> str:
    """The day of a measurement that was not made just now."""
    return f"on {str(facts['measured_at'])[:10]}: " if "measured_at" in facts else ""
