"""Jobs for child processes that the tests of packager.process start."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.process import PipeReport


def echo(report: PipeReport, *, word: str) -> dict[str, Any]:
    print("an engine prints this")
    report.note(f"heard {word}")
    report.text("piece ")
    report.progress(1, 2, "words")
    report.progress(2, 2, "words")
    return {"word": word, "pid": os.getpid()}


def refuse(report: PipeReport) -> dict[str, Any]:
    raise bad_input("model.safetensors is damaged.", "Get it again.")


def stumble(report: PipeReport) -> dict[str, Any]:
    raise RuntimeError("the engine fell over")


def vanish(report: PipeReport, *, number: int) -> dict[str, Any]:
    os.kill(os.getpid(), number)
    return {}


def leave(report: PipeReport) -> dict[str, Any]:
    print("last words of the engine", file=sys.stderr, flush=True)
    os._exit(7)


def take_memory(report: PipeReport, *, count: int) -> dict[str, Any]:
    block = bytearray(count)
    for offset in range(0, count, 4096):
        block[offset] = 1
    return {"taken": len(block)}


def sleep_with_a_child(report: PipeReport, *, pids: str, deaf: bool = False) -> dict[str, Any]:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(pids).write_text(f"{os.getpid()} {child.pid}")
    report.note("sleeping")
    time.sleep(60)
    return {}


def ignore_termination(report: PipeReport) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report.note("deaf")
    time.sleep(60)
    return {}


def leave_a_fork_behind(report: PipeReport, *, pids: str) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    Path(pids).write_text(f"{os.getpid()} {child}")
    report.note("leaving")
    os._exit(7)


def import_by_name(report: PipeReport, *, name: str) -> dict[str, Any]:
    return {"file": importlib.import_module(name).__file__}


def write_an_unsafe_file(report: PipeReport, *, out: str) -> dict[str, Any]:
    """Leaves a configuration that names a library, as a converter would that copies too much."""
    Path(out).mkdir()
    (Path(out) / "openvino_config.json").write_text('{"extensions": ["evil.so"]}')
    return {"artifact_bytes": 27}


def write_files(report: PipeReport, *, out: str, count: str) -> dict[str, Any]:
    """Leaves the same two files every time, and one more byte in `count`."""
    (Path(out) / "inner").mkdir(parents=True)
    (Path(out) / "model.bin").write_bytes(bytes(range(256)) * 400)
    (Path(out) / "inner" / "notes.txt").write_text("tokens")
    with Path(count).open("a") as file:
        file.write("x")
    return {"artifact_bytes": 102_400}


def start_another(report: PipeReport, *, below: str) -> dict[str, Any]:
    """What a job says of itself that has started another."""
    from packager import process

    kinds = []
    start = process._start

    def noted(*arguments: Any) -> Any:
        kinds.append(start(*arguments))
        return kinds[-1]

    process._start = noted
    work = process.run_job("tests.support.jobs:echo", {"word": "x"}, Path(below))
    while True:
        try:
            next(work)
        except StopIteration as stop:
            inner = stop.value.value["pid"]
            break
    forked = type(kinds[0]).__name__ == "WarmChild"
    return {"forked": forked, "cwd": str(Path.cwd()), "pid": os.getpid(), "inner": inner}


def libraries(report: PipeReport) -> dict[str, Any]:
    """What this process has loaded."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    files = sorted({line.split(maxsplit=5)[5] for line in mapped if ".so" in line})
    threads = len(os.listdir("/proc/self/task"))
    return {"files": files, "threads": threads, "modules": sorted(sys.modules)}
