"""What `bench` does with several machines: all are measured at once, and stand in one table."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.cli.bench_quality import lost
from packager.cli.output import emit_json, emit_table, narrate, say
from packager.cli.reach import Way, measure_on, refuse_runtime, refuse_way
from packager.errors import ExitCode, PackError, usage
from packager.json_values import JsonObject
from packager.lab.machines import address_of
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.package.manifest import Manifest
    from packager.records import Measurement, Verdict


_LONG = 100_000_000
"""Bytes of which it is told how many have been sent."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One machine: its figures and what they say of the budgets, or why there are none."""

    machine: str
    now: Measurement | None
    verdicts: tuple[Verdict, ...] = ()
    saved: bool = False
    error: PackError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Of this machine alone."""
        if self.error is not None:
            return self.error.exit_code
        failed = any(verdict.failed for verdict in self.verdicts)
        failed = failed or (self.now is not None and lost(self.now))
        return ExitCode.BUDGET if failed else ExitCode.DONE

    def to_json(self, known: Manifest) -> JsonObject:
        """A row of `devices`."""
        from packager.pipeline import bench

        error = self.error
        return {
            "machine": self.machine,
            "measured": self.now.to_json() if self.now else None,
            "rows": [row.as_dict() for row in bench.beside(known.contents.telling, self.now)]
            if self.now
            else [],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "saved": self.saved,
            "error": {
                "message": error.message,
                "hint": error.hint,
                "exit_code": int(error.exit_code),
            }
            if error
            else None,
        }


def bench_machines(
    known: Manifest, package: Path, machines: Sequence[str], way: Way, save: bool, as_json: bool
) -> int:
    """Measure on all of them at once. A machine that fails is a row with its sentence; the others
    are kept. Returns the exit code of the first that has one."""
    addresses = [address_of(machine) for machine in machines]
    if len(set(addresses)) != len(addresses):
        raise usage("A machine is named twice.", "Name each once with --on.")
    # What is wrong with one is said before any is measured.
    refuse_runtime(known.contents.runtime.name, way.agent, known.contents.task)
    for address in addresses:
        refuse_way(address, way.agent)
    results = _measured(known, package, machines, way)
    outcomes = _kept(known, package, machines, results, save)
    if as_json:
        rows = [outcome.to_json(known) for outcome in outcomes]
        emit_json("bench", {"package": str(package), "name": known.name, "devices": rows})
    else:
        _show(known, outcomes)
    codes = [outcome.exit_code for outcome in outcomes if outcome.exit_code != ExitCode.DONE]
    return codes[0] if codes else ExitCode.DONE


def _measured(
    known: Manifest, package: Path, machines: Sequence[str], way: Way
) -> list[Measurement | PackError]:
    """The figures or the error of each, in their order. Ctrl-C ends all of them."""
    leave = threading.Event()
    runtime = known.contents.runtime.name

    def measure(place: int) -> Measurement | PackError:
        try:
            return _followed(
                measure_on(package, runtime, machines[place], way, f"bench-{place + 1}"),
                machines[place],
                leave,
            )
        except PackError as error:
            return error

    with ThreadPoolExecutor(len(machines)) as pool:
        running = [pool.submit(measure, place) for place in range(len(machines))]
        try:
            return [outcome.result() for outcome in running]
        except BaseException:
            leave.set()
            raise


def _of(machine: str, text: str) -> str:
    """A line about one of the machines; `local:` and `adb:` bring the colon themselves."""
    return f"{machine.removesuffix(':')}: {text}"


def _followed(work: Any, machine: str, leave: threading.Event) -> Measurement:
    """Narrate what a measurement reports, with the machine before each line."""
    from packager.events import StageFinished, StageNote, StageProgress, StageStarted

    quarters: dict[str, int] = {}
    try:
        while True:
            event = next(work)
            if leave.is_set():
                raise PackError("Interrupted.", "", ExitCode.INTERRUPTED)
            match event:
                case StageStarted():
                    narrate(_of(machine, event.title))
                case StageNote():
                    narrate(_of(machine, event.text))
                case StageProgress(unit="B", total=int(total)) if total >= _LONG:
                    quarter = 4 * event.done // total
                    if quarters.get(event.stage, 0) < quarter < 4:
                        narrate(_of(machine, f"{25 * quarter}% of {human_bytes(total)} sent"))
                    quarters[event.stage] = quarter
                case StageFinished() if event.summary:
                    narrate(_of(machine, event.summary))
    except StopIteration as stop:
        measured: Measurement = stop.value
        return measured
    finally:
        work.close()


def _kept(
    known: Manifest,
    package: Path,
    machines: Sequence[str],
    results: Sequence[Measurement | PackError],
    save: bool,
) -> list[_Outcome]:
    """The outcomes, and into the manifest what belongs there, one after another."""
    from packager.pipeline import bench

    seen = known.contents.seen_on_device
    writable = os.access(package, os.W_OK)
    outcomes = []
    for machine, result in zip(machines, results, strict=True):
        if isinstance(result, PackError):
            outcomes.append(_Outcome(machine, None, error=result))
            continue
        wanted = save or (result.on_device and not seen)
        seen = seen or result.on_device
        if wanted and writable:
            bench.save(package, result)
        elif wanted:
            narrate(f"{package} is not writable: the figures of {machine} were not added.")
        verdicts = tuple(bench.judged(known.contents, result)) if result.on_device else ()
        outcomes.append(_Outcome(machine, result, verdicts, wanted and writable))
    return outcomes


def _show(known: Manifest, outcomes: Sequence[_Outcome]) -> None:
    """One table with a column for each machine that answered, then budgets and errors."""
    from packager.report import figures
    from packager.report.budgets import sentence

    before = known.contents.telling
    columns = [("manifest", before)] if before else []
    columns += [(outcome.machine, outcome.now) for outcome in outcomes if outcome.now]
    texts = [
        {row.name: (row.label, row.texts()[1]) for row in figures.rows(taken)}
        for _, taken in columns
    ]
    names = list(dict.fromkeys(name for column in texts for name in column))
    rows = []
    for name in names:
        label = next(column[name][0] for column in texts if name in column)
        rows.append((label, *(column[name][1] if name in column else "" for column in texts)))
    titles = tuple(title for title, _ in columns)
    if any(outcome.now for outcome in outcomes):
        emit_table(known.name, ("", *titles), rows, right=titles)
    marks = {True: "passed", False: "missed", None: "open"}
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            say(_of(outcome.machine, f"{marks[verdict.passed]}: {sentence(verdict)}"))
        if outcome.now is not None and lost(outcome.now):
            narrate(_of(outcome.machine, "its results differ too much from the checkpoint's."))
        if outcome.now is not None and outcome.now.noisy:
            noise = f"this measurement is {outcome.now.noise}. Measure again."
            narrate(_of(outcome.machine, noise))
        if outcome.error is not None:
            error = f"{outcome.error.message} {outcome.error.hint}".rstrip()
            narrate(_of(outcome.machine, error))
