"""Sweeps as the screens ask for them: plan files and finished sweeps in a folder, a plan before it
starts, the last run of a sweep, and the sweep itself."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from packager.errors import PackError, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from packager.device.identity import Here
    from packager.device.target import Target
    from packager.events import Event
    from packager.records import Measurement
    from packager.runtime import Runtime
    from packager.sweep.events import SweepEvent
    from packager.sweep.known import Known
    from packager.sweep.matrix import Matrix
    from packager.sweep.plan_file import SweepPlan

Kind = Literal["plan", "sweep"]
_MOST_PLAN = 1 << 22
_MOST_FILES = 500
"""Entries of a folder that are looked at."""


class World(Protocol):
    """What a sweep needs of the machine and the installation; see tui.services.Services."""

    @property
    def runtimes(self) -> Callable[[], tuple[Runtime, ...]]:
        """Every runtime."""

    @property
    def memory(self) -> Callable[[], tuple[int, int]]:
        """(total, available) bytes of this machine."""

    @property
    def here(self) -> Callable[[], Here | None]:
        """What tells this machine from the device a package is for."""

    @property
    def read_target(self) -> Callable[[str], Target]:
        """A device by its name or file."""

    @property
    def bench_on(self) -> Callable[[Path, str, str | None], Generator[Event, None, Measurement]]:
        """Measures a package on another machine."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A plan file, or the folder of a sweep."""

    kind: Kind
    path: Path


@dataclass(frozen=True, slots=True)
class Shown:
    """What a list entry holds: a table with the places of the columns of numbers, and sentences.
    `order` is what starts a plan, None for a sweep that is over."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: tuple[int, ...]
    sentences: tuple[str, ...]
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A plan that can be started: into the folder `root`."""

    plan: SweepPlan
    matrix: Matrix
    root: Path
    known: Known


def listed(folder: Path) -> tuple[Listed, ...]:
    """Plan files and sweeps in a folder, by name: plans first."""
    from packager.sweep.folder import MARK

    try:
        paths = sorted(folder.absolute().iterdir())[:_MOST_FILES]
    except OSError:
        return ()
    plans = [Listed("plan", path) for path in paths if path.suffix == ".toml" and _is_plan(path)]
    done = [Listed("sweep", path) for path in paths if (path / MARK).is_file()]
    return (*plans, *done)


def _is_plan(path: Path) -> bool:
    """Whether a TOML file is a sweep's: it has axes."""
    from packager.foreign import bounded_bytes, load_toml

    try:
        if not path.is_file():
            return False
        table = load_toml(bounded_bytes(path, _MOST_PLAN).decode())
    except (OSError, ValueError, PackError):
        return False
    return isinstance(table.get("axes"), dict)


def look(world: World, entry: Listed) -> Shown:
    """A plan with its forecast, or the last run of a sweep. Raises PackError for what is
    neither."""
    return _plan(world, entry.path) if entry.kind == "plan" else _run(entry.path)


def _plan(world: World, path: Path) -> Shown:
    from packager.sweep.building import learnt
    from packager.sweep.expect import Pace
    from packager.sweep.folder import MARK, Folder
    from packager.sweep.forecast import columns, rows, sentences
    from packager.sweep.known import Known
    from packager.sweep.matrix import matrix
    from packager.sweep.plan_file import read

    known = Known(
        world.read_target,
        world.runtimes(),
        world.here(),
        lambda: world.memory()[1],
        lambda package, _, machine: world.bench_on(package, machine, None),
    )
    plan = read(path, known)
    root = path.absolute().parent / f"sweep-{plan.name}"
    pace = learnt(Folder(root)) if (root / MARK).is_file() else Pace()
    planned = matrix(plan, known, pace)
    titles = columns()
    return Shown(
        plan.name,
        titles,
        rows(planned),
        tuple(range(3, len(titles) - 1)),
        tuple(sentences(planned)),
        Order(plan, planned, root, known) if planned.possible else None,
    )


def _run(root: Path) -> Shown:
    from packager.sweep.folder import Folder
    from packager.sweep.history import compared
    from packager.sweep.report import sentences, table
    from packager.sweep.standing import standing

    folder = Folder.opened(root)
    runs = folder.runs()
    if not runs:
        raise usage(f"{root} holds no run yet.", "Start its plan.")
    last, changes = runs[-1], compared(runs)
    known = table(last)
    state = "ended" if last.file.finished else "was stopped; its plan continues it"
    lines = [f"Run {last.number} of {last.file.started} {state}.", *sentences(last, changes)]
    lines += [pair.sentence() for pair in standing(runs, folder.asked(last).compare)]
    report = root / "report"
    if report.is_dir():
        lines.append(f"Report: {report}")
    return Shown(
        last.file.name,
        known.columns,
        known.cells,
        tuple(range(1, len(known.columns) - 1)),
        tuple(lines),
    )


def run(order: Order) -> Generator[Event | SweepEvent, None, None]:
    """The sweep, and its report at the end; closing it keeps what is finished."""
    from packager.pipeline.cache import BuildCache
    from packager.sweep import inline, report
    from packager.sweep.building import Work
    from packager.sweep.events import Told
    from packager.sweep.folder import Folder

    folder = Folder.made(order.root, order.plan)
    yield from inline.run(Work(order.plan, order.matrix, folder, order.known, BuildCache()))
    written = report.write(folder, folder.runs(), order.plan)
    yield Told(f"Report: {written[0].parent}")
