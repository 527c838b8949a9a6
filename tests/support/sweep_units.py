"""What the workers of a test's cluster run: units that are written down, with the runtime of numbers
only or with the installed engines; and workers that die at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from packager import process
from packager.sweep.known import Known
from packager.sweep.unit import Answer, Order, do
from tests.support.sweeps import dying
from tests.support.warm_start import Warm

LOG = "SWEEP_UNITS_LOG"
ENGINES = "SWEEP_UNITS_ENGINES"
"""Set where units are to run with what is installed here, not with the runtime of numbers."""
WARM = "SWEEP_UNITS_WARM"
"""The folder of the servers that the stages of a unit are forked from, see warm_start.py."""


def unit(order: Order) -> Answer:
    """Do a unit; a line says when it began and when its answer was there, and whether the cache had
    it."""
    from distributed import get_worker

    if WARM in os.environ and not hasattr(process._start, "__self__"):
        # Dask's; of a process that is forked it decides nothing.
        os.environ.pop("PYTHONHASHSEED", None)
        process._start = Warm(Path(os.environ[WARM])).start
    host = get_worker().address.partition("://")[2].rpartition(":")[0]
    name = f"{order.stage} {order.one.cell.id}"
    _line(f"began {name} {os.getpid()}")
    answer = do(order, _house())
    _line(f"ended {name} {'cached' if answer.cached else 'done'} {answer.error or ''}".rstrip())
    return replace(answer, host=host)


def _house() -> Known:
    if ENGINES not in os.environ:
        return dying()
    from packager.cli.sweep_worker import known_here

    return known_here()


def _line(text: str) -> None:
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(text + "\n")


def done() -> Counter[str]:
    """How often each unit came to its end with work that the cache did not have."""
    lines = Path(os.environ[LOG]).read_text(encoding="utf-8").splitlines()
    return Counter(
        line.split(" ", 1)[1].removesuffix(" done") for line in lines if line.endswith(" done")
    )


def lost() -> int:
    """How many units began and never ended: their worker died."""
    lines = Path(os.environ[LOG]).read_text(encoding="utf-8").splitlines()
    return sum(line.startswith("began ") for line in lines) - sum(
        line.startswith("ended ") for line in lines
    )


@contextlib.contextmanager
def killing(
    count: int, pause: Callable[[random.Random], float], seed: int = 7
) -> Iterator[list[int]]:
    """Workers of this process that are at work die without a word at random moments, so many times;
    `pause` draws the seconds between two looks."""
    killed: list[int] = []
    ended = threading.Event()
    dice = random.Random(seed)

    def kill() -> None:
        while len(killed) < count and not ended.wait(pause(dice)):
            busy = _at_work()
            workers = [
                one
                for one in psutil.Process().children(recursive=True)
                if one.pid in busy and _is_worker(one)
            ]
            if workers:
                chosen = dice.choice(workers)
                with contextlib.suppress(psutil.Error):
                    chosen.kill()
                    killed.append(chosen.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def _at_work() -> set[int]:
    """The processes whose unit has begun and not ended; one that was killed is among them."""
    units: dict[str, int] = {}
    if Path(os.environ[LOG]).exists():
        for line in Path(os.environ[LOG]).read_text(encoding="utf-8").splitlines():
            what, stage, cell, *rest = line.split()
            units[f"{stage} {cell}"] = int(rest[0]) if what == "began" else 0
    return set(units.values())


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("spawn_main" in word for word in process.cmdline())
    return False
