"""Find out how an engine is started here: the first rung of its ladder that is right, each tried in
a child process once.

`climb` before the first work with an engine; `after_death` where a stage died in a way that was
right in the check. Both are generators of notes, and raise the sentence for an engine that is right
in no way (exit code 7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from packager.cores import cores
from packager.deaths import Died
from packager.engine_check import identity, store
from packager.engine_check.job import REFERENCE
from packager.engine_check.ladder import OnAnEngine
from packager.engine_check.outcome import DIED, FAILED, HUNG, RIGHT, WRONG, Outcome, Start
from packager.errors import ExitCode, PackError
from packager.json_values import JsonObject, texts_at
from packager.pipeline.cache import BuildCache
from packager.process import JobResult, Note, run_job
from packager.runtime import Ladder, Laddered, Rung, Runtime

SILENCE_S = 90.0
"""An engine that says nothing for so long hangs: every part of a check takes less than some seconds
on a slow machine."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The reference's products are small: threads of numpy would only stand in the engine's way."""

Notes = Generator[Note, None, Start]
_T = TypeVar("_T")


def climb(runtime: Runtime, work: str = "", again: bool = False) -> Notes:
    """How the engine is started here for a piece of `work`, named by a key. What is known is not
    asked `again` unless that is wanted.

    Raises PackError (exit code 7) where it is right in no way, and as the check does where memory
    or disk runs out.
    """
    if not isinstance(runtime, Laddered):
        return Start(runtime.name)
    ladder = runtime.ladder()
    key = identity.key(runtime, ladder)
    if again:
        store.forget(runtime, key)
    before: list[Outcome] = []
    for rung in ladder.rungs:
        outcome = store.read(runtime, key).of(rung.name, work)
        # An error of its own may come from anything that was amiss at that moment, such as a folder
        # that somebody removed: it is no property of the engine, and is tried again.
        if outcome is None or outcome.result == FAILED:
            outcome = yield from _tried(runtime, ladder, rung)
            store.keep(runtime, ladder, key, outcome)
        if outcome.right:
            start = Start(runtime.name, rung, tuple(before), identity.avoided(rung.avoids))
            if not start.default:
                yield Note(start.sentence())
            return start
        before.append(outcome)
    raise no_way(runtime, ladder, before)


def known(runtime: Runtime, work: str = "") -> Start:
    """How the engine is started as far as that is known, without trying anything: as it comes where
    nothing is known."""
    if isinstance(runtime, Laddered):
        ladder = runtime.ladder()
        record = store.read(runtime, identity.key(runtime, ladder))
        before: list[Outcome] = []
        for rung in ladder.rungs:
            outcome = record.of(rung.name, work)
            if outcome is None or outcome.result == FAILED:
                break
            if outcome.right:
                return Start(runtime.name, rung, tuple(before), identity.avoided(rung.avoids))
            before.append(outcome)
    return Start(runtime.name)


def checked(runtime: Runtime) -> list[Outcome]:
    """What the check found of each rung so far, in the order of the ladder."""
    if not isinstance(runtime, Laddered):
        return []
    ladder = runtime.ladder()
    outcomes = store.read(runtime, identity.key(runtime, ladder)).checked
    return [outcomes[rung.name] for rung in ladder.rungs if rung.name in outcomes]


def after_death(runtime: Runtime, start: Start, death: Died, part: str, work: str) -> Notes:
    """The next way to start an engine that died in `part` of the work, which is kept: this work
    does not ask this rung again.

    Raises the death itself where the engine did not bring it on, the sentence with exit code 7
    where no way is left.
    """
    if not death.death.crashed:
        raise death
    outcome = replace(_died(start.rung, death), part=part)
    if not isinstance(runtime, Laddered):
        raise no_way(runtime, None, [outcome])
    ladder = runtime.ladder()
    store.keep(runtime, ladder, identity.key(runtime, ladder), outcome, work)
    yield Note(f"{_engine(runtime, ladder)} {outcome.words()}")
    return (yield from climb(runtime, work))


def on_ladder(
    runtime: Runtime, part: str, key: str, work: Callable[[Start], Generator[Any, None, _T]]
) -> Generator[Any, None, tuple[_T, Start]]:
    """Do a piece of work that opens the engine, and where that dies again on the next rung; yields
    what the work yields, and notes."""
    start = yield from climb(runtime, key)
    while True:
        try:
            return (yield from work(start)), start
        except Died as death:
            start = yield from after_death(runtime, start, death, part, key)


def _tried(runtime: Runtime, ladder: Ladder, rung: Rung) -> Generator[Note, None, Outcome]:
    """One rung in a child process."""
    yield Note(
        f"{_engine(runtime, ladder)} is tried on this "
        f"machine{'' if rung == ladder.rungs[0] else f' as {rung.name!r}'}"
    )
    cache, began, part = BuildCache(), time.monotonic(), "while starting"
    with cache.work_folder() as work:
        arguments, environment = (
            _arguments(runtime, ladder, str(work)),
            {**_ONE_THREAD, **rung.environment},
        )
        job = run_job(
            "packager.engine_check.job:check", arguments, _log(runtime), environment, watch=True
        )
        heard = time.monotonic()
        try:
            while True:
                message = next(job)
                if isinstance(message, Note):
                    part, heard = message.text, time.monotonic()
                elif time.monotonic() - heard > SILENCE_S:
                    reason = f"it printed nothing for {SILENCE_S:.0f} seconds"
                    if part == REFERENCE:
                        raise _no_reference(f"hung: {reason}", _BUSY_HINT)
                    return Outcome(rung.name, HUNG, part, None, reason, time.monotonic() - began)
        except StopIteration as stop:
            return _judged(rung, stop.value)
        except Died as death:
            if not death.death.crashed:
                raise
            if part == REFERENCE:
                words = death.death.words()
                raise (
                    _no_reference(f"hung: {words}", _BUSY_HINT)
                    if death.death.hung
                    else _no_reference(f"died of {words}", _KERNELS_HINT)
                ) from None
            return replace(_died(rung, death), part=part, seconds=time.monotonic() - began)
        except PackError as error:
            if error.exit_code is ExitCode.RESOURCE:
                raise
            return Outcome(rung.name, FAILED, part, None, error.message, time.monotonic() - began)
        finally:
            job.close()


def _arguments(runtime: Runtime, ladder: Ladder, work: str) -> JsonObject:
    engine = runtime.engine if isinstance(runtime, OnAnEngine) else runtime
    trials = [
        {**asdict(trial), "built": {**asdict(engine.recipe(trial.recipe)), "inputs": {}}}
        for trial in ladder.trials
    ]
    threads = sorted({1, cores().computing})
    return {
        "build_job": engine.build_job,
        "session": engine.session,
        "trials": trials,
        "threads": threads,
        "work": work,
    }


def _judged(rung: Rung, result: JobResult) -> Outcome:
    wrong = texts_at(result.value, "wrong")
    return Outcome(
        rung.name, WRONG if wrong else RIGHT, "", None, "; ".join(wrong[:2]), result.seconds
    )


def _died(rung: Rung, death: Died) -> Outcome:
    reason = death.death.words()
    if death.death.hung:
        return Outcome(rung.name, HUNG, said=reason)
    return Outcome(rung.name, DIED, signal=death.death.signal, said=reason)


def _engine(runtime: Runtime, ladder: Ladder | None) -> str:
    """`llama.cpp (llama-cpp-python 0.3.36)`."""
    if ladder is None:
        return runtime.name
    versions = ", ".join(
        f"{name} {version}" for name, version in identity.versions(ladder).items() if version
    )
    return f"{runtime.name} ({versions})" if versions else runtime.name


_KERNELS_HINT = (
    "numpy's OpenBLAS takes kernels that do not run on this processor. Name older ones with "
    "OPENBLAS_CORETYPE=Haswell in the environment, or Nehalem on a processor without AVX2."
)
_BUSY_HINT = (
    "Try again when nothing else keeps the processors and the memory busy. If it hangs again, name "
    "older kernels of numpy's OpenBLAS with OPENBLAS_CORETYPE=Haswell in the environment."
)


def _no_reference(what: str, hint: str) -> PackError:
    """The sentence for numpy that died or hung where it computes what engines are compared with: it
    says nothing of the engine, and nothing of it is kept."""
    return PackError(
        "The engine cannot be tried on this machine: numpy, which computes the numbers that it is "
        f"compared with, {what}.",
        hint,
        ExitCode.RESOURCE,
    )


def no_way(runtime: Runtime, ladder: Ladder | None, tried: list[Outcome]) -> PackError:
    """The sentence for an engine that is right in no way here. It suspects no feature of the
    processor: the ways that do without have failed as well."""
    ways = "".join(f" Started as {outcome.rung!r}: {outcome.words()}." for outcome in tried[1:])
    message = f"{_engine(runtime, ladder)} does not work on this machine: {tried[0].words()}.{ways}"
    return PackError(message, _way_on(runtime, ladder, tried), ExitCode.RESOURCE)


def _way_on(runtime: Runtime, ladder: Ladder | None, tried: list[Outcome]) -> str:
    install = f": {ladder.reinstall}" if ladder and ladder.reinstall else ""
    if any(outcome.signal == "SIGILL" for outcome in tried):
        return (
            f"It was compiled for another processor. Install it again here{install}; or take "
            "another runtime with --runtime."
        )
    again = "`qwen-pack doctor --engines --again` tries it again"
    return (
        f"Take another runtime with --runtime, or install the engine again{install}. The output "
        f"is in {_log(runtime).parent}; {again}."
    )


def _log(runtime: Runtime) -> Path:
    """The output of the engine when it was tried last."""
    return BuildCache().log(f"engine-{runtime.name}")
