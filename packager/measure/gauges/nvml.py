"""What NVIDIA's management library (NVML, the distribution nvidia-ml-py) says; nothing where it,
the driver or the GPU is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def nvml() -> Iterator[Any | None]:
    """The open library, None where there is none."""
    try:
        # Optional: only a machine with an NVIDIA GPU has a use for it.
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def process_bytes(pid: int | None = None) -> int | None:
    """Memory of all GPUs together that a process holds (this one by default); None where nobody
    tells, or it holds none."""
    with nvml() as library:
        return None if library is None else used_by(library, os.getpid() if pid is None else pid)


def used_by(library: Any, pid: int) -> int | None:
    """The same, asked of an open library. A GPU that does not tell is left out."""
    total = 0
    with suppress(library.NVMLError):
        for index in range(library.nvmlDeviceGetCount()):
            with suppress(library.NVMLError):
                running = library.nvmlDeviceGetComputeRunningProcesses(
                    library.nvmlDeviceGetHandleByIndex(index)
                )
                total += sum(
                    process.usedGpuMemory or 0 for process in running if process.pid == pid
                )
    return total or None
