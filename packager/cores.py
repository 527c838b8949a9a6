"""Which cores this process may use, and how many threads that makes: affinity, two threads of one
core, quota, kinds of cores.

Four numbers are told apart:

* `allowed`: logical processors that the system lets this process run on (affinity, cpusets);
* `at_once`: how many of them it may keep busy, within the quota of every control group: what a
conversion starts;
* `computing`: threads of arithmetic that help, two threads of one core counting once, within the
quota: what an engine starts;
* `big`: those of `computing` that are not on small cores: where a search for the best number
begins.

`root` stands for the root of the file system, so that a directory tree can play the machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.cgroup import Group, groups

ROOT = Path("/")

_CPUS = "sys/devices/system/cpu"
_ALIKE = 0.85
"""Cores of at least this part of the strongest are of its kind: favoured cores of one kind differ
by some per cent in their clock."""
_SMALL = 0.6
"""Cores below this part of the strongest hold the others up: every operation ends with its slowest
thread."""
_INTEL = ("cpu_core", "cpu_atom", "cpu_lowpower")
"""Folders below sys/devices in which Intel's hybrid processors name their kinds, the strongest
first."""
_MOST_CPUS = 8192


@dataclass(frozen=True, slots=True)
class Kind:
    """Cores of one strength: each the logical processors that this process may use of it.
    `strength` is 1 for the strongest."""

    strength: float
    cores: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Cores:
    """The processors of this process. `kinds` has the strongest first; `quota` in processors' worth
    of time, None without one."""

    kinds: tuple[Kind, ...]
    quota: float | None

    @property
    def allowed(self) -> int:
        """Logical processors that this process may run on."""
        return sum(len(core) for kind in self.kinds for core in kind.cores)

    @property
    def physical(self) -> int:
        """Cores behind them."""
        return sum(len(kind.cores) for kind in self.kinds)

    @property
    def at_once(self) -> int:
        """Logical processors that may be busy at once, at least 1."""
        return self._within(self.allowed)

    @property
    def computing(self) -> int:
        """Threads of arithmetic that may help, at least 1."""
        return self._within(self.physical)

    @property
    def big(self) -> int:
        """Threads of arithmetic that no small core holds up, at least 1."""
        return self._within(sum(len(kind.cores) for kind in self.kinds if kind.strength >= _SMALL))

    def _within(self, count: int) -> int:
        return max(1, count if self.quota is None else min(count, int(self.quota)))

    def sizes(self) -> list[int]:
        """Numbers of cores that end with a kind: the strongest, the two strongest, ...; within the
        quota."""
        ends: list[int] = []
        for kind in self.kinds:
            ends.append((ends[-1] if ends else 0) + len(kind.cores))
        return list(dict.fromkeys(min(end, self.computing) for end in ends))

    def fewer(self) -> list[int]:
        """Thread counts to try from the big cores downwards: ends of kinds, one core left to the
        system where kinds differ, halves.

        Decoding saturates the memory long before the cores.
        """
        counts = {end for end in self.sizes() if end < self.big}
        if len(self.kinds) > 1 and self.big > 2:
            counts.add(self.big - 1)
        return sorted({self.big, *counts, *halves(self.big)}, reverse=True)

    def more(self) -> list[int]:
        """Thread counts beyond the big cores, ascending: small ones may help, or stop
        everything."""
        return [end for end in self.sizes() if end > self.big]

    def processors(self, threads: int) -> frozenset[int] | None:
        """The processors of the strongest kinds that have a core for each thread; None where all
        are needed, or all are alike."""
        taken: set[int] = set()
        count = 0
        for kind in self.kinds:
            if count >= threads:
                return frozenset(taken)
            taken.update(cpu for core in kind.cores for cpu in core)
            count += len(kind.cores)
        return None


def halves(count: int) -> list[int]:
    """`count`, half of it, and so on down to 1."""
    rows = []
    while count >= 1:
        rows.append(count)
        count //= 2
    return rows


def fewest(times: Mapping[int, float], close: float) -> int:
    """The fewest threads whose time is within `close` of the best.

    Of counts that are as fast the smaller one leaves cores to others, takes less energy, and waits
    for fewer threads when another program takes one of the cores: a thread more has to earn its
    place.
    """
    best = min(times.values())
    return min(threads for threads, seconds in times.items() if seconds <= best * (1 + close))


def cores(root: Path = ROOT, allowed: Collection[int] | None = None) -> Cores:
    """The processors of this process; some milliseconds. `allowed` overrides its affinity."""
    cpus = sorted(affinity() if allowed is None else allowed) or [0]
    strengths = _strengths(root, cpus)
    by_core: dict[str, list[int]] = {}
    for cpu in cpus:
        by_core.setdefault(_core_of(root, cpu), []).append(cpu)
    if root == ROOT and not any(name.startswith("of ") for name in by_core):
        by_core = _paired(cpus)
        strengths = apple_strengths(cpus) if sys.platform == "darwin" else strengths
    rows = sorted(by_core.values(), key=lambda row: (-max(strengths[cpu] for cpu in row), row))
    return Cores(_kinds(rows, strengths), quota(root))


def affinity() -> frozenset[int]:
    """Logical processors that the system lets this process run on; all of them on systems without
    an affinity."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    with contextlib.suppress(ImportError, AttributeError, OSError):
        # Late: Linux tells without it. Windows has an affinity there, macOS has none.
        import psutil

        return frozenset(psutil.Process().cpu_affinity())
    return frozenset(range(os.cpu_count() or 1))


def machine_cores(root: Path = ROOT) -> int:
    """Physical cores of the whole machine, those that this process may not use included."""
    cpus = [
        int(folder.name[3:])
        for folder in (root / _CPUS).glob("cpu[0-9]*")
        if folder.name[3:].isdecimal()
    ]
    known = {core for core in (_core_of(root, cpu) for cpu in cpus) if core.startswith("of ")}
    return len(known) or len(_paired(range(os.cpu_count() or 1)))


def quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the tightest control group around this process leaves it; None
    without a limit."""
    return min(
        (limit for limit in map(_quota, groups(root, "cpu")) if limit is not None), default=None
    )


def _quota(group: Group) -> float | None:
    if group.version == 2:
        words = (group.text("cpu.max") or "").split()
        limit, period = (words[0], words[1]) if len(words) == 2 else ("max", "")
    else:
        limit, period = (
            group.text("cpu.cfs_quota_us") or "-1",
            group.text("cpu.cfs_period_us") or "",
        )
    known = [re.fullmatch(r"\d{1,18}", word, re.ASCII) for word in (limit, period)]
    return int(limit) / int(period) if all(known) and int(period) > 0 else None


def _kinds(rows: list[list[int]], strengths: Mapping[int, float]) -> tuple[Kind, ...]:
    """Cores in descending strength as kinds; those nearly as strong as the first of a kind belong
    to it."""
    kinds: list[tuple[float, list[tuple[int, ...]]]] = []
    for row in rows:
        strength = max(strengths[cpu] for cpu in row)
        if not kinds or strength < kinds[-1][0] * _ALIKE:
            kinds.append((strength, []))
        kinds[-1][1].append(tuple(row))
    top = kinds[0][0] or 1.0
    return tuple(
        Kind(strength / top if kinds[0][0] else 1.0, tuple(members)) for strength, members in kinds
    )


def _core_of(root: Path, cpu: int) -> str:
    """What names the core of a logical processor: equal for two threads of one core, and its own
    number where nothing tells."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        text = _text(root / _CPUS / f"cpu{cpu}" / "topology" / name)
        if text:
            return f"of {text}"
    return f"cpu {cpu}"


def _paired(cpus: Collection[int]) -> dict[str, list[int]]:
    """Processors by core on a system that only counts cores (macOS, Windows): neighbours are taken
    for threads of one core."""
    per_core = 1
    with contextlib.suppress(ImportError, OSError):
        # Late: Linux tells without it.
        import psutil

        per_core = max(
            1,
            (psutil.cpu_count() or 1)
            // (psutil.cpu_count(logical=False) or psutil.cpu_count() or 1),
        )
    rows: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        rows.setdefault(str(cpu // per_core), []).append(cpu)
    return rows


def _strengths(root: Path, cpus: list[int]) -> dict[int, float]:
    """How strong each processor is, in one unit: Intel's kinds, the kernel's capacity (0 to 1024),
    or the square of the highest clock.

    The first that tells it of all of them; 0 for all where none does.
    """
    kinds = [parse_list(_text(root / "sys/devices" / name / "cpus")) for name in _INTEL]
    if sum(1 for kind in kinds if kind) > 1 and all(
        any(cpu in kind for kind in kinds) for cpu in cpus
    ):
        # A core of a weaker kind reaches about half of what one of the stronger does.
        return {
            cpu: next(0.5**rank for rank, kind in enumerate(kinds) if cpu in kind) for cpu in cpus
        }
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        strengths = {cpu: _number(root / _CPUS / f"cpu{cpu}" / name) for cpu in cpus}
        if all(strengths.values()):
            # Cores of a lower clock are of a smaller design too, and do less in each cycle.
            return (
                {cpu: value * value for cpu, value in strengths.items()}
                if "freq" in name
                else strengths
            )
    return dict.fromkeys(cpus, 0.0)


def apple_strengths(cpus: list[int], read: Callable[[str], str] | None = None) -> dict[int, float]:
    """The two kinds of an Apple processor by macOS's sysctl, which numbers no core: as many as
    there are of each kind.

    An efficiency core reaches a third to a half of what a performance core does.
    """
    counts = [(read or _sysctl)(f"hw.perflevel{level}.logicalcpu") for level in range(2)]
    if not all(text.isdecimal() for text in counts) or sum(map(int, counts)) != len(cpus):
        return dict.fromkeys(cpus, 0.0)
    return {cpu: 1.0 if number < int(counts[0]) else 0.4 for number, cpu in enumerate(cpus)}


def _sysctl(name: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
        return done.stdout.strip()
    return ""


def parse_list(text: str) -> frozenset[int]:
    """`0-3,8` of the kernel as numbers; empty for anything else."""
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part, re.ASCII)
        if match is None:
            return frozenset()
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < _MOST_CPUS:
            return frozenset()
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _number(path: Path) -> float:
    text = _text(path)
    return float(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else 0.0


@contextlib.contextmanager
def pinned(threads: int | None, machine: Cores | None = None) -> Iterator[tuple[int, ...] | None]:
    """Keep all threads of this process on the strongest cores that have room for `threads`, while
    the block runs.

    Yields the processors; None where there is nothing to choose from, or the system cannot do it.
    Threads that are started meanwhile stay where they are put.
    """
    before = affinity()
    processors = keep_on_strongest(threads, machine)
    try:
        yield processors
    finally:
        if processors is not None:
            _pin(before)


def keep_on_strongest(threads: int | None, machine: Cores | None = None) -> tuple[int, ...] | None:
    """The same for good, in a process that ends with its work."""
    mask = (machine or cores()).processors(threads) if threads else None
    if mask is None or not hasattr(os, "sched_setaffinity") or not _pin(mask):
        return None
    # Read back: phones have been seen to ignore a mask without a word.
    return tuple(sorted(mask)) if affinity() == mask else None


def _pin(mask: Collection[int]) -> bool:
    """Move every thread of this process; False where the system refuses."""
    tasks = [0]
    with contextlib.suppress(OSError):
        tasks = [int(folder.name) for folder in Path("/proc/self/task").iterdir()]
    done = False
    for task in tasks:
        # A thread may have ended meanwhile; a cpuset may forbid a processor.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(task, mask)
            done = True
    return done


def stay_within_quota(machine: Cores | None = None) -> None:
    """Keep this process on as many processors as its quota has time for, where the quota is the
    tighter one.

    For conversions whose libraries count the processors that they may run on and know no quota: as
    many threads as a large machine has cores are then stopped and started together, in every period
    of the quota. Which processors is left to chance, as other containers choose here too.
    """
    machine = machine or cores()
    if machine.at_once < machine.allowed and hasattr(os, "sched_setaffinity"):
        _pin(random.sample(sorted(affinity()), machine.at_once))


def thread_limits(machine: Cores | None = None) -> dict[str, str]:
    """Variables that keep the libraries of a child process within the quota, which they do not look
    at; empty without a quota.

    What the user has set is left alone.
    """
    machine = machine or cores()
    if machine.quota is None or machine.at_once >= machine.allowed:
        return {}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return {name: str(machine.at_once) for name in names if name not in os.environ}
