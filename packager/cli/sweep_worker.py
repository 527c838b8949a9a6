"""What a worker of a cluster runs: a unit of a sweep, with this machine's targets and runtimes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from packager.events import Event
    from packager.records import Measurement
    from packager.sweep.known import Known
    from packager.sweep.unit import Answer, Order


def known_here() -> Known:
    """Targets, runtimes and memory of this machine."""
    from packager.sweep.known import Known
    from targets import registry
    from targets.machine import limits as machine
    from targets.machine.here import here

    return Known(
        registry.target,
        registry.runtimes(),
        here(),
        lambda: machine.memory().available,
        _measure_on,
    )


def _measure_on(package: Path, runtime: str, machine: str) -> Generator[Event, None, Measurement]:
    from packager.cli.reach import Way, measure_on

    return measure_on(package, runtime, machine, Way())


def unit(order: Order) -> Answer:
    """Do a unit on a Dask worker; the answer names the worker's host."""
    # Late: Dask is an extra.
    from distributed import get_worker

    from packager.sweep.unit import do

    host = get_worker().address.partition("://")[2].rpartition(":")[0].strip("[]")
    return replace(do(order, known_here()), host=host)
