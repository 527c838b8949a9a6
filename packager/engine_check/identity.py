"""What a check holds for: these very files of the engine, this processor, these ways to start
it."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packager.device.this_machine import describe_machine, installation_id
from packager.digests import key_of
from packager.engine_check.ladder import OnAnEngine
from packager.json_values import JsonDict, JsonObject
from packager.runtime import Ladder, Runtime

VERSION = 1
"""Raised when the same engine would be tried otherwise: outcomes of older versions are not used."""

_LIBRARIES = (".so", ".dylib", ".dll", ".pyd")


def key(runtime: Runtime, ladder: Ladder) -> str:
    """The key of an engine's outcomes on this machine."""
    rungs = [{"name": rung.name, "environment": dict(rung.environment)} for rung in ladder.rungs]
    trials = [[trial.recipe, trial.least, trial.narrow] for trial in ladder.trials]
    # Neither cores nor memory nor the system's release: whether kernels are right depends on none
    # of them.
    here: JsonDict = {"processor": processor(), "architecture": platform.machine()}
    here |= {"installation": installation_id(), "flags": sorted(processor_flags())}
    # What takes a model as it is has a build job of its own; the engine is tried by the engine's.
    engine = runtime.engine if isinstance(runtime, OnAnEngine) else runtime
    jobs = [engine.build_job, engine.session]
    binaries = {name: _digest(name) for name in ladder.distributions}
    return key_of(
        {
            "binaries": binaries,
            "here": here,
            "rungs": rungs,
            "trials": trials,
            "jobs": jobs,
            "version": VERSION,
        }
    )


def versions(ladder: Ladder) -> dict[str, str | None]:
    """Version of each distribution of the engine; None for one that is not there."""
    by_name: dict[str, str | None] = {}
    for name in ladder.distributions:
        by_name[name] = None
        with suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


def processor_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty where the system tells none."""
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset()


def processor() -> str:
    """What the processor calls itself."""
    return str(describe_machine()["processor"])


def _digest(distribution: str) -> str | None:
    """Of what a distribution recorded of its files, their digests among it, and of size and time of
    its libraries as they lie there.

    A library that is exchanged by hand has another time; reading hundreds of megabytes at every
    start would take longer than that is worth.
    """
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    digest = hashlib.sha256((installed.read_text("RECORD") or installed.version).encode())
    for path in sorted(installed.files or [], key=str):
        if any(ending in path.name for ending in _LIBRARIES):
            digest.update(_state(Path(str(path.locate()))))
    return digest.hexdigest()


def _state(path: Path) -> bytes:
    with suppress(OSError):
        status = path.stat()
        return f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode()
    return f"{path.name} is not there\n".encode()


def avoided(names: tuple[str, ...], flags: frozenset[str] | None = None) -> tuple[str, ...]:
    """Those features that this processor has."""
    here = processor_flags() if flags is None else flags
    return tuple(name for name in names if name in here)


def described(runtime: Runtime, ladder: Ladder) -> JsonObject:
    """What stands beside the outcomes, for a person who reads the file."""
    return {"runtime": runtime.name, "engine": versions(ladder), "processor": processor()}
