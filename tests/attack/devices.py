"""The kinds of input that come from a device which is reached from here: what its shell prints, and
what answers in an agent's place."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.errors import PackError
from tests.attack import mutate
from tests.attack.kind import Kind, Wrong

_FILES = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: A chip\nflags\t\t: fpu avx2 fma f16c\n",
    "proc/meminfo": "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:  4000000 kB\n",
    "proc/stat": "cpu  1 2 3 4 5 6 7 8\ncpu0 1 2 3 4 5 6 7 8\ncpu1 1 2 3 4 5 6 7 8\n",
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "proc/self/status": "Name:\tsh\nCpus_allowed_list:\t0-1\n",
    "sys/devices/system/cpu/cpu0/cpu_capacity": "1024\n",
    "sys/devices/system/cpu/cpu1/cpu_capacity": "512\n",
    "sys/devices/system/cpu/cpu0/topology/core_cpus_list": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/capacity": "80\n",
    "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/a/memory.max": "4000000000\n",
    "uname -m": "aarch64\n",
    "uname -sr": "Linux 6.6\n",
    "getprop": "[ro.product.model]: [One]\n[ro.build.version.sdk]: [34]\n",
    "dumpsys battery": "  AC powered: false\n  level: 80\n",
    "dumpsys power": "  mWakefulness=Awake\n",
}
_WORD = b"@WORD@"
"""Stands for the word that nobody else knows, which is new in every run."""


@dataclass(frozen=True, slots=True)
class Said:
    """A device that prints what stands in a file, whatever it is asked."""

    file: Path
    kind: str = "local"
    folder: str = "/nowhere"
    prefix: tuple[str, ...] = ()
    phone: bool = False

    def argv(self, command: str) -> list[str]:
        """See packager.lab.transport.Transport."""
        at = command.find("qwen-pack-")
        word = command[at : at + 26]
        return ["sed", f"s/{_WORD.decode()}/{word}/", str(self.file)]

    def failure(self, code: int, said: str) -> PackError | None:
        """See Transport."""
        return None


def _seed_snapshot(folder: Path) -> bytes:
    return b"".join(b"\n" + _WORD + f" {name}\n{text}".encode() for name, text in _FILES.items())


def _read_snapshot(folder: Path, data: bytes) -> None:
    """All that is made of a device before anything is sent to it."""
    from packager.lab.snapshot import take
    from targets.machine.here import elsewhere

    (folder / "said").write_bytes(data)
    root = folder / "in" / "root"
    root.mkdir(parents=True)
    found = take(Said(folder / "said"), root)
    cores = found.cores()
    here = elsewhere(root, found.architecture, cores.at_once, found.names(), found.phone)
    told = (
        *here.names,
        found.system,
        found.governor() or "",
        found.battery() or "",
        found.screen() or "",
    )
    if any(len(text) > 1000 for text in told):
        raise Wrong("a name without end")
    json.dumps(told).encode()


def _seed_agent(folder: Path) -> bytes:
    return b"".join(_conversation())


def _conversation() -> Iterator[bytes]:
    """The answers to all that the reader below asks, one after another."""
    mark = {
        "at": 5,
        "stat": "cpu 1 2 3 4 5 6 7 8",
        "hertz": 100,
        "own_s": 0.5,
        "mhz": 2000,
        "zones": [["cpu-thermal", 45000]],
    }
    rows: list[dict[str, Any]] = [
        {"protocol": 2, "engine": "llama.cpp 1", "mask": [0, 1]},
        {"mark": mark},
        {"load_s": 0.5, "vocabulary": 4, "ends": [3], "template": None},
        {"ids": [1, 2]},
        {"bytes": 2},
    ]
    yield from (json.dumps(row).encode() + b"\n" for row in rows)
    yield b"ab"
    rows = [
        {"tokens": [1], "at": [10], "mark": mark},
        {"tokens": [2, 3], "at": [11, 12], "mark": mark, "began": 9},
        {"rows": 2, "width": 4},
    ]
    yield from (json.dumps(row).encode() + b"\n" for row in rows)
    yield bytes(32)
    rows = [
        {"end": True},
        {"mark": mark},
        {"mark": mark},
        {"mark": mark},
        {"peak": 9, "resident": 8, "proportional": 7},
        {"cached": 0.5},
        {"mask": [0]},
        {"mark": mark},
    ]
    yield from (json.dumps(row).encode() + b"\n" for row in rows)


def _read_agent(folder: Path, data: bytes) -> None:
    from packager.cores import Cores
    from packager.cores import Kind as KindOfCore
    from packager.lab.gauges import Device, Reach
    from packager.lab.session import Session
    from packager.records.measurement import Through

    (folder / "answers").write_bytes(data)
    reach = Reach(
        # It says no more than that, and listens until nobody speaks to it.
        ("sh", "-c", f"cat {shlex.quote(str(folder / 'answers'))}; exec >&-; exec cat >/dev/null"),
        "/model.gguf",
        Cores((KindOfCore(1.0, ((0,), (1,))),), None),
        {},
        Through(transport="local", agent_sha256="0" * 64, agent_for="x"),
    )
    try:
        session = Session("x", {"lab": reach.to_json(), "context": 8})
        ids = session.encode("ab")
        session.decode(ids)
        heard: list[int] = []
        if len(session.generate(ids, 3, heard.append)) > 3:
            raise Wrong("more tokens than were asked for")
        if sum(map(len, itertools.islice(session.logits([1, 2]), 9))) > 4:
            raise Wrong("more logits than were asked for")
        gauges = Session.gauges({"lab": reach.to_json()})
        gauges.mark()
        gauges.megahertz()
        gauges.celsius()
        gauges.memory()
        gauges.forget(folder)
        with gauges.pinned(1):
            pass
        through = gauges.through()
        if through is not None and len(through.engine or "") > 1000:
            raise Wrong("a name without end")
    finally:
        Device.leave()


DEVICES: tuple[Kind, ...] = (
    Kind("what a device's shell prints", _seed_snapshot, mutate.of_text, _read_snapshot, 10),
    Kind("answers of an agent", _seed_agent, mutate.of_text, _read_agent, 20),
)
"""What devices say."""
