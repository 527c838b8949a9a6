"""The same sweep in one process and on a Dask cluster whose workers are killed at random moments.

    python benchmarks/sweep_kills.py [--scratch FOLDER] [--kills 10] [--workers 2] [--small]

Tiny checkpoints of random weights in four true architectures, three recipes of llama.cpp and two
targets are 24 cells. It passes where all cells are built both ways, the packages are the same
digest for digest, and no unit of work ended twice with work of its own. `--small` takes two
checkpoints and two recipes. The last line is one JSON object; exit code 0 only where it passed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager.cli.sweep_worker import known_here
from packager.pipeline.cache import BuildCache
from packager.sweep import fleet, inline
from packager.sweep.building import Work
from packager.sweep.folder import Folder, Run
from packager.sweep.matrix import matrix
from packager.sweep.plan_file import SweepPlan, parse
from tests.support import sweep_units
from tests.support.gguf_checkpoints import SHAPES
from tests.support.make_checkpoint import write_tiny

TYPES = ("qwen3", "qwen2", "qwen3_moe", "qwen3_5_text")
RECIPES = ("gguf:Q8_0", "gguf:Q4_K_M", "gguf:Q4_0")
TARGETS = ("laptop-cpu", "raspberry-pi-5-8gb")


def plan_of(folder: Path, types: tuple[str, ...], recipes: tuple[str, ...]) -> SweepPlan:
    for seed, name in enumerate(types):
        write_tiny(folder / name, shape=SHAPES[name], seed=seed)
    path = folder / "plan.toml"
    path.write_text(
        f"[axes]\ncheckpoints = {json.dumps(types)}\nrecipes = {json.dumps(recipes)}\n"
        f"targets = {json.dumps(TARGETS)}\ncontexts = [128]\n"
    )
    return parse(path.read_text(), path, known_here())


def work_of(plan: SweepPlan, root: Path) -> Work:
    known = known_here()
    return Work(plan, matrix(plan, known), Folder.made(root, plan), known, BuildCache())


def through(events: Generator[Any, None, Run], name: str) -> Run:
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            return stop.value
        if type(event).__name__ == "CellFinished":
            print(f"{name}: {event.cell.label}: {event.row.status}", flush=True)


def digests(run: Run) -> dict[str, str | None]:
    return {name: row.content_sha256 for name, row in run.rows.items() if row.status == "done"}


def compared(scratch: Path, plan: SweepPlan, kills: int, workers: int) -> dict[str, Any]:
    """Both ways, each with a cache of its own; what came of them."""
    os.environ["QWEN_PACK_CACHE"] = str(scratch / "cache-inline")
    began = time.monotonic()
    alone = through(inline.run(work_of(plan, scratch / "inline")), "inline")
    taken = time.monotonic() - began
    os.environ["QWEN_PACK_CACHE"] = str(scratch / "cache-dask")
    os.environ[sweep_units.LOG] = str(scratch / "units.log")
    os.environ[sweep_units.ENGINES] = "1"

    def pause(dice: random.Random) -> float:
        # Spread over the run, however fast this machine is.
        return taken * dice.uniform(0.2, 1.0) / max(1, kills)

    with sweep_units.killing(kills, pause) as killed:
        events = fleet.run(work_of(plan, scratch / "dask"), f"local:{workers}", sweep_units.unit)
        cluster = through(events, "dask")
    units = sweep_units.done()
    one, other = digests(alone), digests(cluster)
    return {
        "cells": len(alone.rows),
        "kills": len(killed),
        "built_inline": len(one),
        "built_on_dask": len(other),
        "same_digests": sum(one[name] == other.get(name) for name in one),
        "units_with_work": len(units),
        "units_done_twice": sorted(name for name, count in units.items() if count > 1),
        "units_lost_with_their_worker": sweep_units.lost(),
        "failed": [row.reason for row in cluster.rows.values() if row.status != "done"],
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    scratch = asked.scratch or Path(tempfile.mkdtemp(prefix="sweep-kills-"))
    scratch.mkdir(parents=True, exist_ok=True)
    count = 2 if asked.small else None
    try:
        plan = plan_of(scratch, TYPES[:count], RECIPES[:count])
        found = compared(scratch, plan, asked.kills, asked.workers)
    finally:
        if asked.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)
    whole = found["cells"] == found["built_inline"] == found["same_digests"]
    passed = whole and found["kills"] == asked.kills and not found["units_done_twice"]
    print(json.dumps({"benchmark": "sweep_kills", **found, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
