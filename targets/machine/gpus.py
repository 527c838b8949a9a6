"""The NVIDIA GPUs of this machine, through NVML."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from packager.measure.gauges.nvml import nvml


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes of its memory, all and free now; bytes per second of the data sheet (None
    where NVML does not say); driver."""

    name: str
    memory_bytes: int
    free_bytes: int
    bandwidth: float | None = None
    driver: str = ""


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML shows; none where it, the driver or the GPU is missing."""
    with nvml() as library:
        return () if library is None else seen_by(library)


def seen_by(library: Any) -> tuple[Gpu, ...]:
    """The GPUs that an open library shows. One that falls off the bus half way: what was seen
    before it still holds."""
    gpus = []
    driver = ""
    with suppress(library.NVMLError):
        driver = _text(library.nvmlSystemGetDriverVersion())
    with suppress(library.NVMLError):
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            memory = library.nvmlDeviceGetMemoryInfo(handle)
            name = _text(library.nvmlDeviceGetName(handle))
            gpus.append(
                Gpu(name, int(memory.total), int(memory.free), _bandwidth(library, handle), driver)
            )
    return tuple(gpus)


def _bandwidth(library: Any, handle: Any) -> float | None:
    """Both edges of the memory's highest clock (MHz) times its width (bits): what the data sheet
    promises."""
    with suppress(library.NVMLError):
        clock = library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_MEM)
        return 2 * clock * 1e6 * library.nvmlDeviceGetMemoryBusWidth(handle) / 8 or None
    return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
