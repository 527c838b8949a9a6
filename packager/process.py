"""A stage in a child process: killable, its peak memory measured, its death one failed stage.

The parent starts `python -m packager.process`, hands it a job as one JSON line and reads JSON lines
back through a pipe of their own, so whatever an engine prints goes to the log and disturbs nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from packager.cores import thread_limits
from packager.deaths import death_of, hang_of
from packager.errors import ExitCode, PackError, from_foreign, no_room
from packager.json_values import JsonObject, at, at_or_none, object_at
from packager.liveness import Liveness
from packager.python import python_command, python_environment

PARENT = "QWEN_PACK_PARENT"
"""The variable that names the process to die with, for one of ours that runs no job."""

_TICK_S = 0.1
_GRACE_S = 3.0
_WATCH_S = 0.25


def limit_memory(most: int) -> None:
    """Bound the address space of this process to `most` bytes from now on, where the system can.

    Only for a process that does nothing else: an engine beside it would starve.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on every system

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of work."""

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Note:
    """One line worth reading."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of what a model says."""

    piece: str


@dataclass(frozen=True, slots=True)
class Resident:
    """What the child has resident now, in bytes."""

    bytes: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """What the job returned, how long the child lived and the most memory it had resident, in
    bytes."""

    value: JsonObject
    seconds: float
    peak_bytes: int


def run_job(
    job: str,
    arguments: JsonObject,
    log: Path,
    env: dict[str, str] | None = None,
    watch: bool = False,
    niceness: int = 0,
) -> Generator[Progress | Note | Text | Resident, None, JobResult]:
    """Run `module:function` with `arguments` (JSON) in a child; yield what it reports, return a
    JobResult.

    With `watch` it also yields what the child has resident, four times a second: the caller, who
    may only close the generator between two messages, is then never kept waiting by a job that says
    nothing. `niceness` lets other programs go first, as in nice(1): for work that takes all cores
    while somebody sits before them. Closing the generator kills the child and everything it
    started. Raises the job's own PackError, or one that says how the child died: a
    packager.deaths.Died where a signal ended it, or where it hung and was ended here.
    """
    _refuse_without_groups()
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    with log.open("wb") as log_file:
        order: JsonObject = {"job": job, "arguments": arguments}
        child = _start(order, write_end, log_file, env)
        os.close(write_end)
        _let_others_first(child, niceness)
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(order).encode())
                child.stdin.close()
            value: JsonObject | None = None
            error: PackError | None = None
            peak = 0
            watched = started
            life = Liveness(child.pid)
            for message in _messages(read_end, child):
                if message["kind"] != "peak":
                    life.heard()
                elif hang := life.hang():
                    raise hang_of(job, hang, peak, log)
                match message["kind"]:
                    case "progress" | "note" | "text":
                        yield _reported(message)
                    case "peak":
                        peak = max(peak, at(message, "bytes", int))
                        if watch and time.monotonic() - watched >= _WATCH_S:
                            watched = time.monotonic()
                            yield Resident(resident_bytes(child.pid))
                    case "value":
                        value = object_at(message, "value")
                    case "error":
                        error = _error_of(message)
            code = child.wait()
        finally:
            os.close(read_end)
            _kill(child)
    if error is not None:
        raise error
    if value is None:
        raise death_of(job, code, peak, log)
    return JobResult(value, time.monotonic() - started, peak)


def _refuse_without_groups() -> None:
    if not hasattr(os, "killpg"):
        raise no_room(
            "This system cannot run models here: a stage of a build is a process group that can be "
            "stopped as a whole.",
            "Use Linux, macOS, or WSL on Windows; fit, models, targets, verify and unpack work "
            "everywhere.",
        )


def _let_others_first(child: subprocess.Popen[bytes], niceness: int) -> None:
    if niceness and hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            nicer = os.getpriority(os.PRIO_PROCESS, 0) + niceness
            os.setpriority(os.PRIO_PROCESS, child.pid, nicer)


def _reported(message: JsonObject) -> Progress | Note | Text:
    """What a job has told its Report."""
    if message["kind"] == "note":
        return Note(at(message, "text", str))
    if message["kind"] == "text":
        return Text(at(message, "piece", str))
    done, total = at(message, "done", int), at_or_none(message, "total", int)
    return Progress(done, total, at(message, "unit", str))


def _error_of(message: JsonObject) -> PackError:
    """The PackError that a job ended with."""
    return PackError(
        at(message, "message", str),
        at(message, "hint", str),
        ExitCode(at(message, "exit_code", int)),
    )


def value_within(job: str, arguments: JsonObject, log: Path, seconds: float) -> JsonObject | None:
    """The value of a job whose messages nobody reads; None where it took longer than `seconds` and
    was killed. Raises as `run_job`."""
    deadline = time.monotonic() + seconds
    with contextlib.closing(run_job(job, arguments, log, watch=True)) as work:
        while time.monotonic() < deadline:
            try:
                next(work)
            except StopIteration as stop:
                value: JsonObject = stop.value.value
                return value
    return None


def _start(
    order: JsonObject, write_end: int, log: IO[bytes], env: dict[str, str] | None
) -> subprocess.Popen[bytes]:
    """A process of its own session that waits on its standard input for that order."""
    return subprocess.Popen(
        python_command("packager.process", str(write_end), str(os.getpid())),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=(write_end,),
        env=python_environment({**thread_limits(), **(env or {})}),
        start_new_session=True,
    )


def _messages(read_end: int, child: subprocess.Popen[bytes]) -> Iterator[JsonObject]:
    """Messages until the child closes its end or is gone, with the peak sampled in between in case
    it dies."""
    buffer = b""
    sampled = time.monotonic()
    while True:
        # Asked before the pipe is: what a child wrote before it ended is still read.
        ended = child.poll() is not None
        ready, _, _ = select.select([read_end], [], [], _TICK_S)
        if ended and not ready:
            # A process that the child had forked holds the pipe open; nobody will write into it any
            # more.
            return
        # A child that talks all the time is sampled as often as a silent one.
        if not ready or time.monotonic() - sampled >= _TICK_S:
            sampled = time.monotonic()
            yield {"kind": "peak", "bytes": peak_resident_bytes(child.pid)}
        if not ready:
            continue
        chunk = os.read(read_end, 1 << 16)
        if not chunk:
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and all of its process group: politely, then not. A second Ctrl-C cuts the
    politeness short."""
    try:
        if child.poll() is None:
            _signal_group(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
    finally:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def peak_resident_bytes(pid: int | str = "self") -> int:
    """The most memory a process had resident (VmHWM of Linux); 0 where nobody tells.

    Not getrusage on Linux: its maximum starts with the parent's size, which the child shares until
    exec.
    """
    if sys.platform == "darwin" and pid == "self":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status_bytes(pid, "VmHWM:")


def resident_bytes(pid: int | str = "self") -> int:
    """What a process has resident now (VmRSS of Linux); 0 where nobody tells."""
    return _status_bytes(pid, "VmRSS:")


def _status_bytes(pid: int | str, key: str) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


class PipeReport:
    """The child's side: JSON lines into the pipe, progress at most ten times a second."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._last = 0.0

    def send(self, kind: str, **fields: Any) -> None:
        """One message to the parent."""
        self._pipe.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        self._pipe.flush()

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """See packager.runtime.Report."""
        now = time.monotonic()
        if now - self._last >= _TICK_S or done == total:
            self._last = now
            self.send(
                "progress", done=int(done), total=None if total is None else int(total), unit=unit
            )

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""
        self.send("note", text=text)

    def text(self, piece: str) -> None:
        """See packager.runtime.Report."""
        if piece:
            self.send("text", piece=piece)


def resolve(name: str) -> Any:
    """The object behind `module:attribute`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent is gone, however that ended."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def die_with_parent() -> None:
    """Die with the process that PARENT names, where it is set; what this one starts is not to die
    with it as well."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        _die_with(int(parent))


def child_main(write_end: int, parent: int) -> int:
    """Run the job that stands on standard input; the exit code is 0 when a value or a PackError
    went back."""
    _die_with(parent)
    order = json.load(sys.stdin)
    with os.fdopen(write_end, "wb") as pipe:
        report = PipeReport(pipe)
        try:
            value = resolve(order["job"])(report, **order["arguments"])
            report.send("value", value=value)
        except Exception as error:
            known = from_foreign(error)
            if known is None:
                raise
            report.send(
                "error", message=known.message, hint=known.hint, exit_code=int(known.exit_code)
            )
        finally:
            report.send("peak", bytes=peak_resident_bytes())
    return 0


if __name__ == "__main__":
    # Leave without running destructors: engines have been seen to crash there after all work was
    # done.
    code = child_main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
