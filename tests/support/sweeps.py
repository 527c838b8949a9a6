"""A sweep for tests: a plan file on the disk, and runtimes whose figures are plain arithmetic."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from packager.pipeline.cache import BuildCache
from packager.sweep.building import Work
from packager.sweep.folder import Folder
from packager.sweep.known import Known
from packager.sweep.matrix import matrix
from packager.sweep.plan_file import SweepPlan, parse
from tests.support.dying_runtime import Dying
from tests.support.make_checkpoint import write_tiny
from tests.support.plain_runtime import PlainRuntime, target

Result = TypeVar("Result")


def known(runtimes: Sequence[Any] | None = None, **device: Any) -> Known:
    """Two targets, `big` and `small`, served by these runtimes."""
    chosen = list(runtimes or [PlainRuntime()])
    names = tuple(one.name for one in chosen)
    there = {
        "big": target(64e9, name="big", runtimes=names, **device),
        "small": target(1e9, name="small", runtimes=names, **device),
    }

    def look_up(name: str) -> Any:
        from packager.errors import usage
        from packager.names import did_you_mean

        if name not in there:
            raise usage(f"There is no target {name!r}.{did_you_mean(name, there)}")
        return there[name]

    return Known(look_up, chosen)


def plan_of(text: str, folder: Path, house: Known | None = None) -> SweepPlan:
    """The plan in a text, as a file `plan.toml` in the folder would give it."""
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return parse(text, path, house or known())


def tiny_plan(folder: Path, count: int = 2, more: str = "") -> SweepPlan:
    """Tiny checkpoints of random weights, to be built by the runtime of numbers only."""
    for number in range(count):
        if not (folder / f"tiny-{number}").is_dir():
            write_tiny(folder / f"tiny-{number}", seed=number, layers=1)
    names = ", ".join(f'"tiny-{number}"' for number in range(count))
    text = f"""
[axes]
checkpoints = [{names}]
recipes = ["dying:b16"]
targets = ["big"]
contexts = [64]
{more}
"""
    return plan_of(text, folder, dying())


def dying() -> Known:
    """The runtime of tests/support/dying_runtime.py for both targets."""
    return known([Dying()])


def work_of(plan: SweepPlan, root: Path, house: Known | None = None) -> Work:
    """Everything for a sweep into the folder `root`."""
    there = house or dying()
    return Work(plan, matrix(plan, there), Folder.made(root, plan), there, BuildCache())


def through(events: Generator[Any, None, Result]) -> tuple[list[Any], Result]:
    """All events of a generator, and what it returns."""
    found = []
    while True:
        try:
            found.append(next(events))
        except StopIteration as stop:
            return found, stop.value
