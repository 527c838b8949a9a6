"""How busy everybody else was: processor seconds of the whole machine less our own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

_LEAST_S = 0.1
"""Seconds over which a busy core is told: the counters of Linux advance in steps of 10 ms, so that
one step in a shorter time would look like many cores."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in time: the clock, and the processor seconds that others had used until then (None
    where nobody tells)."""

    at: float
    others: float | None
    read: Callable[[], Mark] | None = None
    """How the same machine tells its present; None for this one."""

    @classmethod
    def now(cls) -> Mark:
        """The present of this machine."""
        return cls(time.monotonic(), other_cpu_seconds())

    def cores_since(self) -> float | None:
        """Cores that others have kept busy since this mark, on average; None where nobody tells, or
        where too little time has passed for the machine's counters to say it."""
        now = (self.read or Mark.now)()
        if self.others is None or now.others is None or now.at - self.at < _LEAST_S:
            return None
        return max(0.0, now.others - self.others) / (now.at - self.at)


def other_cpu_seconds() -> float | None:
    """Processor seconds that everybody but this process has used since the machine started; None
    where nobody tells."""
    own = os.times()
    busy = _busy_seconds()
    return None if busy is None else busy - own.user - own.system


def _busy_seconds() -> float | None:
    try:
        with open("/proc/stat", encoding="utf-8") as stat:
            return busy_ticks(stat.readline()) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    try:
        # Late: Linux tells without it.
        import psutil

        times = psutil.cpu_times()
    except (ImportError, OSError, RuntimeError):
        return None
    return float(
        sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "interrupt", "dpc"))
    )


def busy_ticks(line: str) -> int:
    """Ticks in which the cores of a `cpu` line of Linux's /proc/stat were not free for us.

    user, nice, system, irq, softirq, and steal: the time in which the host of a virtual machine ran
    other guests on them. Not idle and iowait; guest and guest_nice are counted in user and nice
    already. Source: proc_stat(5).
    """
    fields = [int(field) for field in line.split()[1:]]
    return sum(fields[index] for index in (0, 1, 2, 5, 6, 7))
