"""Everything that a measurement reads of the machine that computes: this one, or the one that a
session reaches elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from packager.cores import Cores, cores, pinned
from packager.device.this_machine import describe_machine
from packager.files import regular_files
from packager.json_values import JsonObject
from packager.measure.gauges import clock, energy, pages
from packager.measure.gauges.load import Mark
from packager.measure.gauges.memory import Memory, proportional_bytes
from packager.measure.gauges.nvml import process_bytes
from packager.process import peak_resident_bytes, resident_bytes
from packager.records.measurement import Through


class Gauges(Protocol):
    """The gauges of one machine. What it does not tell is None."""

    def cores(self) -> Cores:
        """The processors that the model may use."""

    def pinned(self, threads: int | None) -> AbstractContextManager[tuple[int, ...] | None]:
        """Keep the model's process on the strongest cores with room for `threads`, see
        packager.cores.pinned; yields their numbers as the system has them afterwards."""

    def mark(self) -> Mark:
        """The present, by that machine's clock."""

    def forget(self, artifact: Path) -> float | None:
        """Make its page cache forget the artifact; the share that it holds nevertheless."""

    def meter(self, gpu: bool) -> energy.Meter | None:
        """A meter of joules."""

    def megahertz(self) -> float | None:
        """The clock now."""

    def celsius(self) -> float | None:
        """The processor's temperature now."""

    def memory(self) -> Memory:
        """What the model's process has taken, in bytes."""

    def machine(self) -> JsonObject:
        """See packager.device.this_machine.describe_machine."""

    def through(self) -> Through | None:
        """How a machine elsewhere was reached; None for this one."""


class ThisMachine:
    """See Gauges. The model runs in this very process."""

    def cores(self) -> Cores:
        """See Gauges."""
        return cores()

    def pinned(self, threads: int | None) -> AbstractContextManager[tuple[int, ...] | None]:
        """See Gauges."""
        return pinned(threads, self.cores())

    def mark(self) -> Mark:
        """See Gauges."""
        return Mark.now()

    def forget(self, artifact: Path) -> float | None:
        """See Gauges."""
        return pages.forget(_files(artifact))

    def meter(self, gpu: bool) -> energy.Meter | None:
        """See Gauges."""
        return energy.meter(gpu=gpu)

    def megahertz(self) -> float | None:
        """See Gauges."""
        return clock.megahertz()

    def celsius(self) -> float | None:
        """See Gauges."""
        return clock.celsius()

    def memory(self) -> Memory:
        """See Gauges."""
        steady = resident_bytes()
        return Memory(
            # The kernel counts both in steps, and what is resident now was so at some moment.
            peak=max(peak_resident_bytes(), steady),
            steady=steady,
            proportional=proportional_bytes(),
            # Engines keep what they took on a GPU until the model is closed: now is the peak.
            gpu=process_bytes(),
        )

    def machine(self) -> JsonObject:
        """See Gauges."""
        return describe_machine()

    def through(self) -> Through | None:
        """See Gauges."""
        return None


def gauges_of(session: Any, settings: JsonObject) -> Gauges:
    """The gauges of the machine on which sessions of that class compute: a class that computes
    elsewhere has `gauges(settings)`."""
    elsewhere = getattr(session, "gauges", None)
    gauges: Gauges = ThisMachine() if elsewhere is None else elsewhere(settings)
    return gauges


def _files(artifact: Path) -> list[Path]:
    if artifact.is_dir():
        return regular_files(artifact)
    return [artifact] if artifact.is_file() else []
