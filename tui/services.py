"""What the screens need from outside the core, handed over by the composition root as one frozen
object of callables."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tui import core, sweeps

if TYPE_CHECKING:
    from packager.device.identity import Here
    from packager.device.target import Target
    from packager.errors import PackError
    from packager.events import Event
    from packager.lab.seen import Seen
    from packager.package.package import Package
    from packager.pipeline.adapter_package import AdapterPlan
    from packager.plan.plan import Plan
    from packager.records import Measurement
    from packager.runtime import Runtime
    from packager.select import Candidate
    from packager.shipping.export import Exported
    from packager.sources.hub_file import HubFile
    from tui.ask import Ask
    from tui.leaving import Order
    from tui.outlook import Outlook
    from tui.sweeps import Listed, Shown


@dataclass(frozen=True, slots=True)
class Services:
    """Callables only; each may take its time, so screens call them from worker threads.

    `memory` gives (total, available) bytes of this machine. `known_machine` is this machine as a
    target where it was measured before, `measure_machine` measures it: it yields sentences and
    returns the target. `here` is what tells this machine from the device a package is for.
    `bench_on` measures a package on the machine at an address, as `bench --on` takes it, by the
    agent of a name or file, or by the one that fits. `lab` are the other machines that can be
    measured, as each of them answers.
    """

    targets: Callable[[], tuple[Target, ...]]
    runtimes: Callable[[], tuple[Runtime, ...]]
    memory: Callable[[], tuple[int, int]]
    known_machine: Callable[[], Target | None]
    measure_machine: Callable[[], Generator[str, None, Target]]
    read_target: Callable[[str], Target]
    bench_on: Callable[[Path, str, str | None], Generator[Event, None, Measurement]]
    here: Callable[[], Here | None] = lambda: None
    lab: Callable[[], tuple[Seen, ...]] = tuple
    find: Callable[[Services, Ask], core.Found] = core.find
    plan: Callable[[Services, Ask, Candidate, Path | None], Plan] = core.plan
    problems: Callable[[Services, Plan], list[PackError]] = core.problems
    adapter_plan: Callable[[Services, Path, str, str | None], AdapterPlan] = core.adapter_plan
    build: Callable[[Plan | AdapterPlan], Generator[Event, None, Package]] = core.build
    bench: Callable[[Services, Path], Generator[Event, None, Measurement]] = core.bench
    export: Callable[[Order], Generator[Event, None, Exported]] = core.export
    hub_file: Callable[[str, str, str | None, bool], Generator[object, None, HubFile]] = (
        core.hub_file
    )
    absent: Callable[[Services, Target], dict[str, str]] = core.absent
    unserved: Callable[[], frozenset[str]] = core.unserved
    underway: Callable[[Plan], bool] = core.underway
    expected: Callable[[Plan | AdapterPlan], dict[str, float]] = core.expected
    outlook: Callable[[Services, Ask, Plan], Outlook] = core.outlook
    replaced: Callable[[Plan], Package | None] = core.replaced
    sweep_files: Callable[[Path], tuple[Listed, ...]] = sweeps.listed
    sweep_shown: Callable[[Services, Listed], Shown] = sweeps.look
    engine_log: Callable[[str], str] = core.engine_log
    packages: Callable[[Path], tuple[Package, ...]] = core.packages
    clock: Callable[[], float] = time.monotonic
    folder: Path = Path()
