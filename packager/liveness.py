"""Whether a process still lives: a child that waits for something that never comes is ended, as
nobody may be there to see it.

Two kinds of hang are told apart: nothing is computed, read or written any more (a deadlock), and
threads that compute for hours without a word (a lock that is waited for by spinning). What waits
for a disk or was stopped by somebody counts as alive.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

IDLE_S = 180.0
"""No stage waits so long for anything without computing: a load from a slow disk reads all the
while."""
SILENT_S = 2 * 3600.0
"""Filling a long context on a small board takes an hour at most before the next word."""

_SAMPLE_S = 5.0
_BUSY_SHARE = 0.01
"""Share of one core that counts as work: threads of an engine's own that wake up and sleep again
take less."""
_BLOCKED = frozenset({psutil.STATUS_DISK_SLEEP, psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP})


@dataclass
class Liveness:
    """The signs of life of a process and of all that it started."""

    pid: int
    idle_s: float = 0.0
    silent_s: float = 0.0
    _sampled: float = field(default_factory=time.monotonic)
    _work: tuple[float, int] = (0.0, 0)

    def heard(self) -> None:
        """It said something."""
        self.idle_s = self.silent_s = 0.0

    def hang(self) -> str:
        """What shows that it hangs, as the end of a sentence; empty while it lives.

        Looks at the process every five seconds at most. Time in which this process did not ask (it
        was stopped, or the machine slept) counts as one look.
        """
        now = time.monotonic()
        passed = now - self._sampled
        if passed < _SAMPLE_S:
            return ""
        self._sampled = now
        counted = min(passed, 2 * _SAMPLE_S)
        self.silent_s += counted
        self.idle_s = 0.0 if self._worked(passed) else self.idle_s + counted
        if self.idle_s >= IDLE_S:
            return f"it computed, read and wrote nothing for {self.idle_s:.0f} seconds"
        if self.silent_s >= SILENT_S:
            return f"it computed for {self.silent_s / 3600:.1f} hours without a word"
        return ""

    def _worked(self, passed: float) -> bool:
        """Whether anything was done since the last look."""
        seconds, moved, blocked = 0.0, 0, False
        try:
            started = psutil.Process(self.pid)
            for process in [started, *started.children(recursive=True)]:
                times = process.cpu_times()
                seconds += times.user + times.system
                moved += _moved(process)
                blocked = blocked or process.status() in _BLOCKED
        except psutil.Error:
            # It ended, or something that it had started did: that is life.
            return True
        before, self._work = self._work, (seconds, moved)
        return blocked or moved != before[1] or seconds - before[0] > _BUSY_SHARE * passed


def _moved(process: psutil.Process) -> int:
    """Bytes that it read and wrote so far; 0 where the system does not tell."""
    try:
        counters = process.io_counters()
    except (psutil.Error, AttributeError, NotImplementedError):
        return 0
    return int(counters.read_bytes + counters.write_bytes)
