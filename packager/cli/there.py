"""`python -m packager.cli.there`: what the desk starts on a device that has Python.

It speaks as an agent does, see docs/lab.md: a command is a line, its answers are lines of JSON. It
leaves when its input ends, in the middle of a measurement too.
"""

from __future__ import annotations

import _thread
import json
import os
import platform
import queue
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from packager.errors import ExitCode, PackError, usage
from packager.json_values import JsonObject, as_object, at
from packager.lab.link import PROTOCOL

if TYPE_CHECKING:
    from packager.events import Event
    from packager.records import Measurement

_ALIVE_S = 20.0
_IDLE_S = 600.0
_GRACE_S = 10.0


class Answers:
    """Lines of JSON on the standard output of this process, from several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, answer: JsonObject) -> None:
        """One line. Nobody who reads any more ends the process."""
        with self._lock:
            try:
                self._out.write(json.dumps(answer) + "\n")
                self._out.flush()
            except OSError:
                os._exit(0)


def main() -> int:
    """Obey until the input ends, or nothing is asked for ten minutes."""
    # The engine's own words must not come between the answers.
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        while True:
            line = lines.get(timeout=_IDLE_S)
            if line is None:
                return 0
            try:
                answers.say(_obeyed(line, answers))
            except PackError as error:
                answers.say(
                    {"error": error.message, "hint": error.hint, "code": int(error.exit_code)}
                )
    except (KeyboardInterrupt, queue.Empty):
        return 0


def _listen(lines: queue.Queue[str | None]) -> None:
    """Commands, as they come. At the end of the input the main thread is interrupted, which ends
    what it has started."""
    for line in sys.stdin:
        lines.put(line.rstrip("\n"))
    lines.put(None)
    _thread.interrupt_main()
    threading.Event().wait(_GRACE_S)
    os._exit(0)


def _obeyed(line: str, answers: Answers) -> JsonObject:
    command, _, rest = line.partition(" ")
    if command == "hello":
        return {"protocol": PROTOCOL, "engine": f"Python {platform.python_version()}"}
    if command != "bench":
        raise usage("There is no such command.", "Take the same version on both machines.")
    asked = as_object(json.loads(rest), "the command")
    ended = threading.Event()
    threading.Thread(target=_breathe, args=(answers, ended), daemon=True).start()
    try:
        return _told(_measured(asked), answers)
    finally:
        ended.set()


def _breathe(answers: Answers, ended: threading.Event) -> None:
    """A measurement may have nothing to tell for minutes: the desk hears that it goes on."""
    while not ended.wait(_ALIVE_S):
        answers.say({"alive": True})


def _measured(asked: JsonObject) -> Generator[Event, None, Measurement]:
    """The same as `bench` on this machine, and nothing is written into the package."""
    from packager.package import manifest
    from packager.pipeline import bench
    from targets import registry
    from targets.machine.here import here

    package = Path(at(asked, "package", str))
    runtime = registry.runtime(manifest.read(package).contents.runtime.name)
    return bench.run(
        package, runtime, here(), at(asked, "claimed", bool), at(asked, "sustained_s", float)
    )


def _told(steps: Generator[Event, None, Measurement], answers: Answers) -> JsonObject:
    from packager.events import StageNote, StageStarted

    try:
        while True:
            event = next(steps)
            if isinstance(event, StageStarted):
                answers.say({"note": event.title})
            elif isinstance(event, StageNote):
                answers.say({"note": event.text})
    except StopIteration as stop:
        taken: Measurement = stop.value
        return {"measured": taken.to_json()}
    except OSError as error:
        raise PackError(f"{error}.", "Check the device's disk.", ExitCode.RESOURCE) from None
    finally:
        steps.close()


if __name__ == "__main__":
    sys.exit(main())
