"""The measurement of a built package on the machine that its target names, a device of the lab: one
at a time, whoever asks for it."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from pathlib import Path

from packager.digests import key_of
from packager.events import Event
from packager.package import manifest
from packager.package.package import Package
from packager.pipeline import bench
from packager.sweep import machine_lock
from packager.sweep.known import Known
from packager.sweep.matrix import Planned
from packager.sweep.plan_file import SweepPlan

Lane = tuple[str, ...]
_RUNTIME = "llama.cpp"
"""What the agent on another machine runs."""


def machine_of(plan: SweepPlan, one: Planned, known: Known) -> str | None:
    """The machine that measures a cell's package; None where that is this one."""
    machine = plan.on.get(one.cell.target)
    if machine is None or known.by_prefix(one.cell.recipe).name != _RUNTIME:
        return None
    return machine


def lane(machine: str) -> Lane:
    """What a measurement holds: the one slot of its device."""
    return ("device", machine)


def measured(
    known: Known, path: Path, machine: str, began: str, held: bool = False
) -> Generator[Event, None, Package]:
    """Measure the package there unless it was since the run `began`, and add the figures to its
    manifest. `held` says that the caller has the device already."""
    package_manifest = manifest.read(path)
    if not _taken(package_manifest, began):
        assert known.measure_on is not None, "the machine was checked with the plan"
        runtime = package_manifest.contents.runtime.name
        if held:
            figures = yield from known.measure_on(path, runtime, machine)
        else:
            with machine_lock.claim(key_of(lane(machine))):
                figures = yield from known.measure_on(path, runtime, machine)
        bench.save(path, figures)
    return Package(path, manifest.read(path))


def _taken(found: manifest.Manifest, began: str) -> bool:
    """Whether another machine has measured the package since then."""
    since = datetime.fromisoformat(began)
    return any(
        measurement.through is not None
        and measurement.measured_at is not None
        and datetime.fromisoformat(measurement.measured_at) >= since
        for measurement in found.contents.measurements
    )
