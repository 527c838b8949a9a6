"""The folder of a sweep: its packages, the manifests of dropped ones, and the rows of every run.

A row is one line that is on the disk before the next cell starts, so that nothing but the cell that
was running is lost however a sweep ends. A run without an end is taken up again by the same plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packager import __version__, locks
from packager.errors import bad_input, usage
from packager.files import write_json
from packager.foreign import bounded_bytes, parse_json
from packager.records import Misfit
from packager.records.base import Record
from packager.sweep.asked import Asked
from packager.sweep.plan_file import SweepPlan
from packager.sweep.row import Row, below, now

MARK = "sweep.json"
SCHEMA = "qwen-pack/sweep-folder/1"
_RUN = re.compile(r"[0-9]{4,8}")
_MOST_ROWS_BYTES = 1 << 29
_MOST_LINE = 1 << 20
_MOST_PLAN = 1 << 22
_HINT = "Name another folder with --out; everything that was built is in the cache."


class RunFile(Record, frozen=True, kw_only=True):
    """What is known of a run as a whole; `finished` is None while it has not come to its end."""

    plan: str
    name: str
    started: str
    finished: str | None = None
    version: str | None = None
    system: str | None = None
    interrupted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run: its number, its file, and the last row of each cell."""

    number: int
    path: Path
    file: RunFile
    rows: dict[str, Row] = field(default_factory=dict)


class Folder:
    """The folder of a sweep, held by one process at a time while `held`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages = root / "packages"
        self.manifests = root / "manifests"
        self._runs = root / "runs"

    @classmethod
    def made(cls, root: Path, plan: SweepPlan) -> Folder:
        """The folder, made where it is not there. Raises PackError (usage) for one that holds
        something else."""
        folder = cls(root)
        if root.is_dir() and any(root.iterdir()) and not (root / MARK).is_file():
            raise usage(f"{root} holds files that no sweep wrote.", _HINT)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MARK).is_file():
            write_json(root / MARK, {"schema": SCHEMA, "name": plan.name})
        return folder

    @classmethod
    def opened(cls, root: Path) -> Folder:
        """A folder that is there. Raises PackError (usage) for one that is no sweep's."""
        if not (root / MARK).is_file():
            raise usage(
                f"{root} is not the folder of a sweep: it has no {MARK}.",
                "Name the folder that `qwen-pack sweep PLAN.toml --out` wrote.",
            )
        return cls(root)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs no other sweep writes here. Raises PackError (usage) where one
        does."""
        handle = os.open(self.root / MARK, os.O_RDWR)
        try:
            try:
                locks.take(handle)
            except BlockingIOError:
                raise usage(
                    f"Another sweep is writing into {self.root}.", "Wait for it, or name --out."
                ) from None
            except OSError:  # a disk that knows no locks
                pass
            yield
        finally:
            os.close(handle)

    def runs(self) -> list[Run]:
        """Every run, oldest first. Raises PackError (exit code 6) for a damaged one."""
        if not self._runs.is_dir():
            return []
        names = sorted(path.name for path in self._runs.iterdir() if _RUN.fullmatch(path.name))
        return [self._run(self._runs / name) for name in sorted(names, key=int)]

    def _run(self, path: Path) -> Run:
        file = path / "run.json"
        try:
            data = parse_json(bounded_bytes(file, _MOST_LINE), str(file))
            known = RunFile.from_json(data)
        except FileNotFoundError:
            raise bad_input(f"{path} has no run.json.", f"Remove {path}.") from None
        except Misfit as error:
            raise bad_input(f"{file}: {error}.", f"Remove {path}.") from None
        return Run(int(path.name), path, known, {row.id: row for row in _rows(path / "rows.jsonl")})

    def begin(self, plan: SweepPlan) -> tuple[Run, bool]:
        """The run to go on with, and whether it was begun before: the last one, where it has the
        same plan and no end."""
        before = self.runs()
        if before and before[-1].file.finished is None and before[-1].file.plan == plan.digest:
            _cut(before[-1].path / "rows.jsonl")
            return before[-1], True
        number = before[-1].number + 1 if before else 1
        path = self._runs / f"{number:04d}"
        path.mkdir(parents=True)
        file = RunFile(
            plan=plan.digest,
            name=plan.name,
            started=now(),
            version=__version__,
            system=f"{platform.system()} {platform.machine()}",
        )
        write_json(path / "plan.json", {"text": plan.text, **asked_of(plan).to_json()})
        write_json(path / "run.json", file.to_json())
        return Run(number, path, file), False

    def asked(self, run: Run) -> Asked:
        """What the plan of a run asks of its report; nothing where that is not there."""
        file = run.path / "plan.json"
        try:
            return Asked.from_json(parse_json(bounded_bytes(file, _MOST_PLAN), str(file)))
        except (FileNotFoundError, Misfit):
            return Asked()

    def add(self, run: Run, row: Row) -> None:
        """Keep a row: on the disk when this returns."""
        line = json.dumps(row.to_json(), ensure_ascii=True).encode() + b"\n"
        with (run.path / "rows.jsonl").open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        run.rows[row.id] = row

    def finish(self, run: Run) -> None:
        """The run has come to its end."""
        write_json(run.path / "run.json", run.file.but(finished=now()).to_json())

    def is_there(self, row: Row) -> bool:
        """Whether what a finished row speaks of is still here."""
        its_manifest = row.package and f"{row.package}/manifest.json"
        return any(
            path is not None and _plain(path) and (self.root / path).is_file()
            for path in (its_manifest, row.manifest)
        )

    def bug_file(self, name: str) -> Path:
        """Where the traceback of a cell's bug is kept."""
        folder = self.root / "bugs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.txt"

    def below(self, path: Path) -> str:
        """A path as rows keep it."""
        return below(self.root, path)


def asked_of(plan: SweepPlan) -> Asked:
    """What a report must know of a plan."""
    return Asked(
        tasks=plan.tasks,
        behaviour_percent=plan.behaviour_percent,
        compare=plan.compare,
    )


def _cut(path: Path) -> None:
    """Take away what a power cut left of a last line, so that the next one begins a line."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def _plain(path: str) -> bool:
    """Whether a path of a row stays below the folder."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts


def _rows(path: Path) -> Iterable[Row]:
    """The rows of a file. A last line without its end, which a power cut leaves, is passed over."""
    try:
        lines = bounded_bytes(path, _MOST_ROWS_BYTES).split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines[:-1], 1):
        where = f"{path}: line {number}"
        try:
            row = Row.from_json(parse_json(line[: _MOST_LINE + 1], where))
            row.of  # noqa: B018
        except (Misfit, ValueError) as error:
            raise bad_input(f"{where}: {error}.", f"Remove {path.parent}.") from None
        yield row
