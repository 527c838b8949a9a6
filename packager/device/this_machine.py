"""The machine that measures, as a measurement names it."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from packager.cores import cores
from packager.json_values import JsonObject


def describe_machine() -> JsonObject:
    """Processor, logical processors this process may keep busy, memory in bytes, system: tells two
    machines apart, names neither."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": cores().at_once,
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
    }


def installation_id() -> str:
    """A hash that tells this machine from another of the same make. It stays in the cache and goes
    into no package."""
    name = platform.node()
    for file in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            name += Path(file).read_text(encoding="utf-8")
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "uarch"):
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(ImportError, OSError, RuntimeError):
        # Late: every other system tells without it.
        import psutil

        return int(psutil.virtual_memory().total)
    return None
