"""Memory of this process beyond what `packager.process` tells: its proportional set size."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process has taken, in bytes: the most resident memory, resident memory now, its
    proportional set, memory of GPUs. `peak` and `steady` are 0 where nobody tells."""

    peak: int
    steady: int
    proportional: int | None
    gpu: int | None = None


def proportional_bytes(rollup: Path = Path("/proc/self/smaps_rollup")) -> int | None:
    """Resident memory in which a page that n processes share counts 1/n (Pss of Linux); None where
    nobody tells."""
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        rollup.open(encoding="utf-8") as lines,
    ):
        for line in lines:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None
