"""Energy in joules from what the machine counts itself: RAPL, the GPU's own counter, a discharging
battery."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from packager.records.measurement import Energy

ROOT = Path("/sys/class")
_SAMPLE_S = 0.5
_DRAINED = "Discharging"


class Meter(Protocol):
    """A counter of joules that only grows while it is open."""

    source: str
    """What is counted, in words: `RAPL, processor package`."""

    def joules(self) -> float:
        """Joules since the meter was opened."""

    def close(self) -> None:
        """Stop counting."""


def meter(gpu: bool = False, root: Path = ROOT) -> Meter | None:
    """The best meter of this machine; None where it tells no energy.

    With `gpu` the GPU's counter first, for work that runs there. RAPL (the processor package, often
    readable by root only) before the battery, which counts the whole device and only while it
    discharges.
    """
    counter = nvidia() if gpu else None
    return counter or Rapl.of(root / "powercap") or Battery.of(root / "power_supply")


class Rapl:
    """The energy counters of the processor packages. Source: the kernel's powercap interface,
    energy_uj and max_energy_range_uj."""

    source = "RAPL, processor package"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = {
            zone: int((zone / "energy_uj").read_text(encoding="utf-8")) for zone in zones
        }
        self._ranges = {zone: _number(zone / "max_energy_range_uj") or 0 for zone in zones}
        self._total = 0

    @classmethod
    def of(cls, folder: Path) -> Rapl | None:
        """None where there is no readable package zone."""
        with contextlib.suppress(OSError, ValueError):
            # Zones below a package (core, dram) are parts of it, or none of the processor.
            zones = [
                zone
                for zone in sorted(folder.glob("*:*"))
                if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
            ]
            if zones:
                return cls(zones)
        return None

    def joules(self) -> float:
        """See Meter. The counter starts again from 0 behind its range."""
        for zone, before in self._zones.items():
            with contextlib.suppress(OSError, ValueError):
                now = int((zone / "energy_uj").read_text(encoding="utf-8"))
                self._total += now - before if now >= before else now - before + self._ranges[zone]
                self._zones[zone] = now
        return self._total / 1e6

    def close(self) -> None:
        """Nothing is held."""


class Battery:
    """The power that a discharging battery gives, sampled twice a second and summed up over
    time."""

    source = "battery, whole device"

    def __init__(self, battery: Path) -> None:
        self._battery = battery
        self._total = 0.0
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @classmethod
    def of(cls, folder: Path) -> Battery | None:
        """None without a battery that discharges and tells its power: at a charger nobody knows
        what the device takes."""
        for battery in sorted(folder.glob("*")) if folder.is_dir() else []:
            if (
                _text(battery / "type") == "Battery"
                and _text(battery / "status") == _DRAINED
                and watts(battery)
            ):
                return cls(battery)
        return None

    def joules(self) -> float:
        """See Meter. Not a number from the moment on at which a charger is plugged in."""
        with self._lock:
            now = time.monotonic()
            power = watts(self._battery) if _text(self._battery / "status") == _DRAINED else None
            self._total += (math.nan if power is None else power) * (now - self._last)
            self._last = now
            return self._total

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self.joules()

    def close(self) -> None:
        """End the sampler."""
        self._ended.set()
        self._sampler.join()


def watts(battery: Path) -> float | None:
    """The power of a battery now: power_now, or current times voltage (the kernel gives
    millionths)."""
    power = _number(battery / "power_now")
    if power is not None:
        return abs(power) / 1e6
    current, voltage = _number(battery / "current_now"), _number(battery / "voltage_now")
    return None if current is None or voltage is None else abs(current) / 1e6 * voltage / 1e6


class _Counter:
    """A counter of millijoules."""

    def __init__(self, source: str, read: Callable[[], float]) -> None:
        self.source = source
        self._read = read
        self._start = read()

    def joules(self) -> float:
        return (self._read() - self._start) / 1000

    def close(self) -> None:
        return None


def nvidia() -> Meter | None:
    """The energy counters of every NVIDIA GPU of the machine together; None without one, or without
    nvidia-ml-py."""
    try:
        # Late, and not needed anywhere else: it looks for the driver's library.
        import pynvml

        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]

        def read() -> float:
            return float(
                sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)
            )

        return _Counter("NVML, GPU", read) if handles and read() else None
    except Exception:
        # The library is missing, or the driver, or this GPU has no counter: each has an error class
        # of its own.
        return None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return None


def spent(
    meter: Meter | None, tokens: int, prompts: int, decode_j: float, prompt_j: float
) -> Energy | None:
    """Joules per token and per prompt, with their source; None without a meter that counted
    something."""
    # Not a number, where a charger came in between, is not more than 0 either.
    if meter is None or not decode_j + prompt_j > 0:
        return None
    return Energy(
        source=meter.source,
        joules_per_token=decode_j / tokens if tokens else None,
        joules_per_prompt=prompt_j / prompts if prompts else None,
    )
