"""What a sweep costs beside its builds, and what a large one would take on a cluster.

    python benchmarks/sweep.py [--cells 200] [--simulated 10000] [--workers 200] [--dask]

The first part times, cell by cell, what the inline executor does around a build: planning, checks,
the row on the disk. The second is a simulation: no worker runs, but cells, lanes and the order of
units are the executor's own (packager.sweep.courses), with the stage times of
packager/sweep/rates.toml. It says how far the makespan lies above the least that is possible, what
goes through the cache, and how much memory the lists of cells and lanes take. With `--dask` real
orders go through a real Dask scheduler, as many at a time as that many workers have, and its memory
is read. The last line is one JSON object; exit code 0 only where both bars are kept.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

from packager.cli.sweep_worker import known_here
from packager.pipeline.cache import BuildCache
from packager.records import Contents
from packager.sweep.building import Work
from packager.sweep.courses import AHEAD, WHOLE, Course, Courses
from packager.sweep.folder import Folder
from packager.sweep.keeping import Keeper
from packager.sweep.matrix import Planned, matrix
from packager.sweep.plan_file import SweepPlan, parse
from packager.sweep.row import Stages, done
from packager.sweep.unit import Answer, Order

OVERHEAD_BAR_S = 0.050
MAKESPAN_BAR = 1.15
READ_BYTES_S = 1.5e9
"""A stage that the cache has is hashed: an assumption of the simulation, said in its result."""


def plan_of(folder: Path, cells: int) -> SweepPlan:
    """A plan with at least so many cells, of variants of the catalogue with random weights."""
    path = folder / "plan.toml"
    contexts = ", ".join(str(256 * number) for number in range(1, max(2, cells // 50) + 1))
    text = f"""
[axes]
recipes = ["gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_K_M", "gguf:Q4_K_M", "gguf:Q4_0", "gguf:Q3_K_M"]
targets = ["laptop-32gb", "xeon-8480"]
contexts = [{contexts}]
[filter]
family = ["Qwen2.5", "Qwen3"]
kind = ["general", "coder"]
max_params = 9e9
[weights]
source = "dummy"
"""
    path.write_text(text, encoding="utf-8")
    return parse(text, path, known_here())


def overhead(folder: Path, count: int) -> dict[str, Any]:
    """Seconds per cell around the build, in this process."""
    plan, known = plan_of(folder, count), known_here()
    began = time.perf_counter()
    found = matrix(plan, known)
    per_cell = (time.perf_counter() - began) / len(found.planned)
    work = Work(plan, found, Folder.made(folder / "out", plan), known, BuildCache(folder / "cache"))
    run, _ = work.folder.begin(plan)
    keeper = Keeper(plan, work.folder, work.cache, run.rows)
    contents = Contents.from_json(
        {
            "name": "n",
            "files": [],
            "runtime": {"name": "r"},
            "recipe": {},
            "variant": {},
            "source": {},
        }
    )
    times, cpu = [], []
    for one in found.possible[:count]:
        began, busy = time.perf_counter(), time.process_time()
        keeper.make_room(one)
        work.planned(one)
        row = done(one.cell, {}, contents, Stages(), (None, None), one.parameters)
        work.folder.add(run, row)
        list(keeper.thin(run.rows, row))
        times.append(per_cell + time.perf_counter() - began)
        cpu.append(per_cell + time.process_time() - busy)
    return {
        "cells": len(times),
        "median_s": statistics.median(times),
        "median_cpu_s": statistics.median(cpu),
        "worst_s": max(times),
        "bar_s": OVERHEAD_BAR_S,
    }


class Simulated:
    """Workers, each a machine of its own, and the units that wait for them."""

    def __init__(self, cells: tuple[Planned, ...], paces: dict[str, Any], workers: int) -> None:
        self._courses = Courses(cells, WHOLE)
        self._paces = paces
        self._free = deque(f"w{number}" for number in range(workers))
        self._pinned: dict[str, deque[tuple[Course, Order]]] = {}
        self._queue: deque[tuple[Course, Order]] = deque()
        self._running: list[tuple[float, int, str, Course, Order]] = []
        self._room = AHEAD * workers
        self._out = 0
        self._number = 0
        self.work = 0.0
        self.hits = self.units = 0
        self.read_bytes = self.written_bytes = 0

    def run(self) -> float:
        """The makespan in seconds."""
        now = 0.0
        while self._courses.waiting or self._out:
            for unit in self._courses.ready(self._order, self._room):
                self._out += 1
                self._hand_out(unit)
            self._start(now)
            now, _, worker, course, order = heapq.heappop(self._running)
            self._out -= 1
            self._room += course.host is None
            self._free.append(worker)
            course.done(Answer(worker, 1.0, host=worker))
            self._courses.free(order, course, done=True)
            if course.next is not None:
                self._courses.again(course)
        return now

    def _hand_out(self, unit: tuple[Course, Order]) -> None:
        host = unit[0].host
        if host is None:
            self._room -= 1
            self._queue.append(unit)
        else:
            self._pinned.setdefault(host, deque()).append(unit)

    def _start(self, now: float) -> None:
        waiting = deque[str]()
        while self._free:
            worker = self._free.popleft()
            own = self._pinned.get(worker)
            queue = own or self._queue
            if not queue:
                waiting.append(worker)
                continue
            course, order = queue.popleft()
            taken = self._seconds(order)
            self._number += 1
            heapq.heappush(self._running, (now + taken, self._number, worker, course, order))
        self._free = waiting

    def _order(self, course: Course) -> Order:
        assert course.next is not None
        return Order(course.next, course.one, _PLAN[0], "", "")

    def _seconds(self, order: Order) -> float:
        """Time of a unit: its work if it is the first of its lane, and reading what came before."""
        self.units += 1
        size = order.one.artifact_bytes
        read = 0 if order.stage in ("fetch", "convert") else size
        self.read_bytes += read
        seconds = read / READ_BYTES_S
        first = bool(order.lanes) or order.stage == "package"
        self.hits += not first
        if first:
            pace = self._paces[order.one.cell.id]
            seconds += pace.get(order.stage, 0.0)
            if ("reference", order.one.cell.variant, str(order.one.context)) in order.lanes:
                seconds += pace.get("reference", 0.0)
            self.written_bytes += size if order.stage in ("convert", "package") else 0
        self.work += seconds
        return seconds


_PLAN: list[SweepPlan] = []


def simulate(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """A sweep of so many cells on so many workers, in simulated time."""
    from packager.sweep.expect import Pace

    plan, known = plan_of(folder, count), known_here()
    _PLAN[:] = [plan]
    cells = matrix(plan, known).possible[:count]
    assert len(cells) == count, f"the catalogue gives {len(cells)} cells that can be built"
    pace = Pace()
    paces = {one.cell.id: dict(pace.of("llama.cpp", one.parameters).seconds) for one in cells}
    tracemalloc.start()
    began = time.perf_counter()
    simulated = Simulated(cells, paces, workers)
    makespan = simulated.run()
    taken = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    longest = max(sum(one.values()) for one in paces.values())
    ideal = max(simulated.work / workers, longest)
    return {
        "cells": len(cells),
        "workers": workers,
        "units": simulated.units,
        "taken_over": simulated.hits,
        "makespan_s": round(makespan),
        "ideal_s": round(ideal),
        "ratio": round(makespan / ideal, 3),
        "ratio_bar": MAKESPAN_BAR,
        "cache_read_bytes": simulated.read_bytes,
        "cache_written_bytes": simulated.written_bytes,
        "scheduler_peak_bytes": peak,
        "scheduler_s": round(taken, 2),
        "assumed_read_bytes_s": READ_BYTES_S,
    }


def scheduler_memory(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """What Dask's scheduler takes while so many orders go through it, AHEAD of each worker at a
    time; one worker answers them all without doing anything."""
    import psutil
    from distributed import Client, LocalCluster

    plan, known = plan_of(folder, 200), known_here()
    (one, *_) = matrix(plan, known).possible
    order = Order("convert", one, plan, str(folder), "2026-01-01T00:00:00+00:00")
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=4, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        before = psutil.Process().memory_info().rss
        out = deque[Any]()
        for number in range(count):
            if number >= AHEAD * workers:
                out.popleft().result()
            out.append(client.submit(_answered, order, number, pure=False))
        full = psutil.Process().memory_info().rss
        client.gather(list(out))
    return {
        "orders": count,
        "outstanding": AHEAD * workers,
        "resident_before_bytes": before,
        "resident_bytes": full,
    }


def _answered(_order: Order, _number: int) -> Answer:
    return Answer("m", 1.0, host="h")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--simulated", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--dask", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inline = overhead(folder, asked.cells)
        print(
            f"inline: {1000 * inline['median_s']:.1f} ms per cell, median of {inline['cells']}, "
            f"{1000 * inline['median_cpu_s']:.1f} ms of CPU time"
        )
        simulated = simulate(folder, asked.simulated, asked.workers)
        print(f"simulated: {simulated['makespan_s']} s, {simulated['ratio']} of the least possible")
        dask = scheduler_memory(folder, asked.simulated, asked.workers) if asked.dask else None
    passed = inline["median_s"] <= OVERHEAD_BAR_S and simulated["ratio"] <= MAKESPAN_BAR
    print(
        json.dumps(
            {
                "benchmark": "sweep",
                "inline": inline,
                "simulated": simulated,
                "dask_scheduler": dask,
                "passed": passed,
            }
        )
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
