"""Artifacts in the true shape of a variant with random weights, built once for a benchmark; jobs
run to their end."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager import catalog
from packager.engines import installed
from packager.errors import PackError
from packager.process import JobResult, run_job
from packager.recipe import Recipe, split_id
from packager.runtime import Runtime
from packager.select.rules import RETRIEVAL_KINDS
from packager.shape import Shape
from packager.units import human_bytes
from targets import registry

ROOT = Path(__file__).resolve().parent.parent

LONGEST = 16384
"""Context that is written into artifacts which hold one; the session's own setting is what a run
allocates."""

PATIENT = {"OMP_WAIT_POLICY": "passive"}
"""Threads give way to other programs instead of spinning against them. Not where speed is measured:
a package runs without it."""


def finish(job: str, log: Path, env: dict[str, str] | None = None, **arguments: Any) -> JobResult:
    """Run a job in a child process to its end. Raises the PackError of the job, or one that says
    how the child died."""
    # A child never looks into the current folder; the jobs of the benchmarks are found by this.
    work = run_job(job, arguments, log, {"PYTHONPATH": str(ROOT), **(env or {})})
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: JobResult = stop.value
            return result


def found(recipe_id: str) -> tuple[Runtime, Recipe]:
    """The adapter and the recipe of an id like `gguf:Q4_K_M/kv_q8_0`. Raises PackError (usage) for
    an unknown one."""
    prefix, weights, kv = split_id(recipe_id)
    runtime = next(runtime for runtime in registry.runtimes() if runtime.prefix == prefix)
    return runtime, runtime.recipe(weights, kv)


def shape_of(name: str) -> Shape:
    """The shape of a variant that the catalogue has a shape for."""
    shape = catalog.find(name).shape
    assert shape is not None, f"no source states the shape of {name}"
    return shape


def task_of(name: str) -> str:
    """What a variant of the catalogue gives: text, vectors or scores; text for other names."""
    try:
        kind = catalog.find(name).kind
    except PackError:
        return "generate"
    return RETRIEVAL_KINDS.get(kind, "generate")


def planned_shape(name: str) -> Shape:
    """The shape that is planned for: an embedder or a reranker has no output matrix."""
    shape, task = shape_of(name), task_of(name)
    return shape if task == "generate" else shape.for_task(task)


def versions(recipes: Iterable[str]) -> dict[str, str | None]:
    """Versions of what builds and runs these recipes."""
    return {
        name: installed(name)
        for name in sorted({name for recipe in recipes for name in found(recipe)[0].distributions})
    }


@contextmanager
def scratch_folder(kept: Path | None) -> Iterator[Path]:
    """The folder that was named, which stays; or one of our own that goes with whatever ends this
    program."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    # Left alone SIGTERM ends the interpreter without a word to context managers.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="qwen-pack-benchmark-") as folder:
        yield Path(folder)


def built(
    name: str,
    recipes: Iterable[str],
    scratch: Path,
    checkpoint: Path | None = None,
    context: int = LONGEST,
) -> tuple[dict[str, Path], dict[str, str]]:
    """The artifacts of one variant by recipe id, and why others could not be built; those in
    `scratch` are taken as they are.

    Recipes that differ in the cache type share an artifact. The checkpoint is written only where
    something is to be built from it, and removed afterwards; one that is given is built from as it
    is, and `name` only names the folder.
    """
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    places = {recipe: folder / recipe.partition("/")[0].replace(":", "-") for recipe in recipes}
    missing = {place: recipe for recipe, place in places.items() if not place.exists()}
    failed: dict[Path, str] = {}
    own, log = folder / "checkpoint", folder / "build.log"
    if missing and checkpoint is None:
        shutil.rmtree(own, ignore_errors=True)
        finish(
            "packager.sources.dummy:fetch",
            log,
            repo_id=catalog.find(name).repo_id,
            shape=asdict(planned_shape(name)),
            out=str(own),
        )
    for place, recipe_id in missing.items():
        runtime, recipe = found(recipe_id)
        # Only whole artifacts bear the final name: an interrupted build is not taken for one the
        # next time.
        half = folder / f".{place.name}"
        shutil.rmtree(half, ignore_errors=True)
        order: dict[str, Any] = {
            "checkpoint": str(checkpoint or own),
            "recipe": {**asdict(recipe), "inputs": {"task": task_of(name)}},
            "workload": {"context": context},
            "out": str(half),
        }
        try:
            result = finish(runtime.build_job, log, **order)
        except PackError as error:
            # Too little memory for one of them says nothing about the others.
            print(
                f"{folder.name} {place.name} cannot be built: {error.message}",
                file=sys.stderr,
                flush=True,
            )
            shutil.rmtree(half, ignore_errors=True)
            failed[place] = error.message
            continue
        half.replace(place)
        print(
            f"{folder.name} {place.name}: built in {result.seconds:.0f} s with "
            f"{human_bytes(result.peak_bytes)}",
            flush=True,
        )
    shutil.rmtree(own, ignore_errors=True)
    whole = {recipe: place for recipe, place in places.items() if place not in failed}
    return whole, {recipe: failed[place] for recipe, place in places.items() if place in failed}
