"""Measure a package on a machine that has Python and the package's engine: our own code runs there,
in an environment of its own, and tells the figures.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

from packager.errors import PackError, bad_input, usage
from packager.events import Event, StageFinished, StageNote, StageProgress, StageStarted
from packager.files import sha256
from packager.json_values import object_at
from packager.lab.answers import optional_text
from packager.lab.heat import celsius
from packager.lab.link import Link
from packager.lab.push import Sent, push
from packager.lab.python_there import Installed, install
from packager.lab.snapshot import take
from packager.lab.transport import Transport
from packager.limits import DEVICE_WORD_CHARACTERS
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.pipeline.cooling import cool, temperature
from packager.pipeline.intact import intact
from packager.records import Measurement
from packager.records.measurement import OnDevice, Through
from packager.scratch import temporary_folder
from packager.units import human_bytes

BUILT_FOR = "Python on the device"
"""What the manifest says of what ran there."""

Result = TypeVar("Result")
_PUSH, _MEASURE = "push", "measure"


def run(
    package: Path,
    transport: Transport,
    python: str,
    claimed: bool = False,
    sustained_s: float = 0,
    cool_c: float | None = None,
) -> Generator[Event, None, Measurement]:
    """Yield the events of the measurement and return its figures with their place, as that machine
    tells it of itself; the package is not changed.

    `python` is the interpreter there, by name or path, whose packages hold the engine. Raises
    PackError: as `bench` does there, and exit code 2 where no Python serves, 5 where the machine
    cannot be reached or goes away, 7 where its disk does not suffice.
    """
    package_manifest = intact(package)
    if transport.phone:
        raise usage("A phone has no Python to run qwen-pack in.", "Leave --agent out.")
    if transport.prefix:
        raise usage(
            "Python is not started through another program.", "Leave the words after local: out."
        )
    with temporary_folder() as held:
        (held / "seen").mkdir()
        snapshot = take(transport, held / "seen")
        if cool_c is not None:
            temperature(lambda: celsius(transport))
        state = (snapshot.governor(), snapshot.battery())
        there, folder = yield from _sent(transport, python, package, package_manifest, held)
    if cool_c is not None:
        yield from cool(lambda: celsius(transport), cool_c)
    before = celsius(transport)
    asked = {"package": folder, "claimed": claimed, "sustained_s": float(sustained_s)}
    with contextlib.closing(Link(there.argv)) as link:
        taken = yield from _measured(link, json.dumps(asked))
        engine = optional_text(link.hello, "engine", DEVICE_WORD_CHARACTERS) or ""
    way = Through(
        transport=transport.kind,
        agent_sha256=there.sha256,
        agent_for=BUILT_FOR,
        engine=f"{package_manifest.contents.runtime.name}, {engine}",
        governor=state[0],
        battery=state[1],
        temperature_before_c=before,
        temperature_after_c=celsius(transport),
    )
    return taken.but(through=way, place=taken.place or OnDevice())


def _sent(
    transport: Transport, python: str, package: Path, found: Manifest, work: Path
) -> Generator[Event, None, tuple[Installed, str]]:
    """Our code and the package there."""
    started = time.monotonic()
    yield StageStarted(_PUSH, "Send to the device", 1, 1)
    yield StageNote(_PUSH, "setting Python up there")
    there = yield from _progress(install(transport, python, work))
    files = [
        Sent(package / entry.path, entry.path, entry.size, entry.sha256) for entry in found.files
    ]
    own = package / manifest.NAME
    files.append(Sent(own, manifest.NAME, own.stat().st_size, sha256(own)))
    folder = yield from _progress(push(transport, files))
    size = human_bytes(sum(sent.size for sent in files))
    yield StageFinished(_PUSH, time.monotonic() - started, False, size)
    return there, folder


def _progress(
    steps: Generator[tuple[int, int], None, Result],
) -> Generator[Event, None, Result]:
    try:
        while True:
            yield StageProgress(_PUSH, *next(steps))
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        steps.close()


def _measured(link: Link, asked: str) -> Generator[Event, None, Measurement]:
    """The figures that are told there, and what is told meanwhile."""
    started = time.monotonic()
    yield StageStarted(_MEASURE, "Measure on the device", 1, 1)
    link.tell(f"bench {asked}")
    while "measured" not in (told := link.hear()):
        note = optional_text(told, "note", DEVICE_WORD_CHARACTERS)
        if note:
            yield StageNote(_MEASURE, note)
    yield StageFinished(_MEASURE, time.monotonic() - started, False)
    try:
        return Measurement.from_json(object_at(told, "measured"))
    except (ValueError, PackError) as error:
        raise bad_input(
            f"The figures of the device are none: {error}.",
            "Take the same version of qwen-pack on both machines.",
        ) from None
