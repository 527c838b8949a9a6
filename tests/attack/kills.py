"""Commands ended at random moments, or short of disk, memory or files: no wrong package, nothing
left behind after the next run."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from packager.errors import ExitCode
from packager.scratch import is_ours
from tests.attack.commands import (
    COMMANDS,
    Command,
    Ground,
    ended,
    environment,
    listening,
    right,
    start,
)

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TRACEBACK = "Traceback (most recent call last)"
_BEFORE = "ended before"
_ATTEMPTS = 3
_SHOWN = 20
_FULL, _MEMORY, _FILES = "full disks", "low memory", "few files"


@dataclass
class Result:
    """What became of the commands, by outcome; `cases` are the first that should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, label: str, how: str, problems: Mapping[str, str]) -> None:
        """One command more."""
        with self.lock:
            self.ended[how] += 1
            for problem, detail in problems.items():
                self.counts[problem] += 1
                if len(self.cases) < _SHOWN:
                    self.cases.append(f"{label}: {problem}: {detail}")


@dataclass(frozen=True)
class _Reference:
    """The right result of a command, and how long it takes once it answers signals."""

    out: Path
    seconds: float


def attack(ground: Ground, kills: int, limits: int, seed: int, until: float) -> Result:
    """`kills` commands ended by signals and `limits` short of something, two at a time, as far as
    the moment `until` (of time.monotonic) allows."""
    result = Result()
    random_ = random.Random(seed)
    weighted = [command for command in COMMANDS for _ in range(command.share)]
    work = [(number, random_.choice(weighted), random_.random(), None) for number in range(kills)]
    kinds = [_FULL, _FULL, _FULL, _MEMORY, _FILES]
    work += [
        (kills + number, random_.choice(weighted), random_.random(), kinds[number % len(kinds)])
        for number in range(limits)
    ]
    random_.shuffle(work)
    used = {command.name: command for _, command, _, _ in work}
    references = {name: _reference(command, ground) for name, command in used.items()}

    def one(item: tuple[int, Command, float, str | None]) -> None:
        number, command, moment, short = item
        if time.monotonic() < until:
            _try(ground, command, references[command.name], number, moment, short, result)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, work))
    return result


def _reference(command: Command, ground: Ground) -> _Reference:
    room = _room(ground, f"reference-{command.name.replace(' ', '-')}")
    command.prepare(ground, room)
    child = start(command, ground, room)
    listening(child)
    began = time.monotonic()
    code, errors = ended(child)
    if code:
        raise RuntimeError(f"{command.name} ended with {code}: {errors}")
    return _Reference(room / "out", time.monotonic() - began)


def _room(ground: Ground, name: str) -> Path:
    room = ground.folder / "rooms" / name / "room"
    room.mkdir(parents=True)
    return room


def _try(
    ground: Ground,
    command: Command,
    reference: _Reference,
    number: int,
    moment: float,
    short: str | None,
    result: Result,
) -> None:
    """One command; one that ended before it was to be killed is tried again, and killed earlier."""
    for attempt in range(_ATTEMPTS):
        room = _room(ground, f"{number}-{attempt}")
        command.prepare(ground, room)
        known = _names(room.parent)
        if short is None:
            which = _SIGNALS[number % len(_SIGNALS)]
            how, code, errors = _killed(command, ground, room, which, moment * reference.seconds)
            wrong = code not in (0, 130, -which)
        else:
            code, errors = ended(start(command, ground, room, _limit(short, moment)))
            how, wrong = f"{short}: exit {code}", code not in (0, 7)
        problems = {"wrong exit codes": f"{how}: {code} {errors[-300:]}"} if wrong else {}
        if _TRACEBACK in errors:
            problems["tracebacks"] = errors[-600:]
        out = room / "out"
        if out.exists() and not right(command, out, reference.out):
            problems["wrong packages"] = f"after {how}"
        last = short is not None or how != _BEFORE or attempt == _ATTEMPTS - 1
        if last:
            problems |= _again(ground, command, reference, room, known)
        shutil.rmtree(room.parent, ignore_errors=True)
        if last or problems:
            result.add(f"{number} {command.name}", how, problems)
            return
        moment *= 0.5


def _killed(
    command: Command, ground: Ground, room: Path, which: signal.Signals, seconds: float
) -> tuple[str, int, str]:
    """How it ended, its exit code and stderr."""
    child = start(command, ground, room)
    listening(child)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        child.send_signal(which)
    code, errors = ended(child)
    return (which.name if code else _BEFORE), code, errors


def _again(
    ground: Ground, command: Command, reference: _Reference, room: Path, known: set[str]
) -> dict[str, str]:
    """The same command once more, as a user would: it ends well, or says that its result is there
    already; the result is right, and nothing else is there, neither files nor processes."""
    problems = {}
    refused = (room / "out").exists() and not command.replaces
    code, errors = ended(start(command, ground, room))
    if code != (ExitCode.USAGE if refused else ExitCode.DONE):
        problems["next runs that fail"] = f"{code}: {errors[-600:]}"
    if _TRACEBACK in errors:
        problems["tracebacks"] = errors[-600:]
    if not right(command, room / "out", reference.out):
        problems["wrong packages"] = "after the next run"
    left = leftovers(room, known)
    if left:
        problems["leftovers"] = ", ".join(left[:3])
    return problems


def leftovers(room: Path, known: set[str], patience_s: float = 10.0) -> list[str]:
    """What is left of a command in its room, in the folder of temporaries around it, of which
    `known` was there before, and in its cache; and its processes that live on for so many seconds."""
    cache = room.parent / f"{room.name}-cache"
    left = _names(room) - {"out"} | _names(room.parent) - known - {cache.name}
    if (cache / "work").is_dir():
        left |= _names(cache / "work")
    left |= {path.name for path in room.parent.rglob(".*") if is_ours(path.name)}
    until = time.monotonic() + patience_s
    while (living := _processes(room)) and time.monotonic() < until:
        time.sleep(0.1)
    return sorted(left) + living


def _processes(room: Path) -> list[str]:
    """The processes whose temporaries lie around a room."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == environment(room)["TMPDIR"]:
                found.append(f"process {process.pid} {' '.join(process.cmdline())[:200]}")
    return found


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _limit(short: str, moment: float) -> dict[int, int]:
    """A file that may grow no further stands for a full disk: the error is of the same kind, and
    anybody may set it."""
    if short == _FULL:
        return {resource.RLIMIT_FSIZE: int(4096 * 2 ** (moment * 12))}
    if short == _MEMORY:
        return {resource.RLIMIT_AS: int((300 << 20) * 2 ** (moment * 3))}
    return {resource.RLIMIT_NOFILE: int(24 + moment * 40)}
