"""The NVIDIA GPUs of this machine, through NVML (the distribution nvidia-ml-py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes of its memory, all and free now."""

    name: str
    memory_bytes: int
    free_bytes: int


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML shows; none where it, the driver or the GPU is missing."""
    try:
        # Optional: nvidia-ml-py is no dependency, and without an NVIDIA driver it is of no use.
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(Gpu(name.decode() if isinstance(name, bytes) else str(name), int(memory.total), int(memory.free)))
    except pynvml.NVMLError:
        # A GPU that falls off the bus half way: what was seen before it still holds.
        pass
    finally:
        pynvml.nvmlShutdown()
    return tuple(found)
