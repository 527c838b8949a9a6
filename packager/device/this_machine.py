"""The machine that measures, as a measurement names it."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes, system: enough to tell two machines
    apart, no name of either."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
    }


def usable_cores() -> int:
    """Cores this process may use, two threads of one core counting once."""
    # Late: only measurements need it.
    import psutil

    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False) or 1
    return max(1, min(allowed, round(allowed * physical / logical)))


def installation_id() -> str:
    """A hash that tells this machine from another of the same make. It stays in the cache and goes
    into no package."""
    name = platform.node()
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            name += Path(place).read_text()
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "uarch"):
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
