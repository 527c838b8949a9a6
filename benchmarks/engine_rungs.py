"""What each way of starting an engine costs: prefill and decode in every rung of its ladder, in
turns; the last line is one JSON object.

    python benchmarks/engine_rungs.py [--model Qwen3-0.6B] [--rounds 3] [--runtime llama.cpp ...]

Random weights of the model's true shape, a recipe of 4 bits. A rung on which the engine dies is
left out and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager import catalog, sources
from packager.cores import cores
from packager.deaths import Died
from packager.device.this_machine import describe_machine
from packager.process import JobResult, run_job
from packager.runtime import Laddered, Runtime
from targets import registry

RECIPES = {"llama.cpp": "Q4_K_M", "openvino": "int4_sym_g128", "onnxruntime": "int4_sym_b32"}
CONTEXT, PROMPT, NEW = 1024, 512, 48
FIGURES = ("prefill_tps", "decode_tps")


def finished(work: Generator[Any, None, JobResult]) -> JobResult:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: JobResult = stop.value
            return result


def artifact(runtime: Runtime, checkpoint: Path, folder: Path) -> Path:
    out = folder / runtime.name
    recipe = {**asdict(runtime.recipe(RECIPES[runtime.name])), "inputs": {}}
    out.mkdir()
    asked = {
        "checkpoint": str(checkpoint),
        "recipe": recipe,
        "workload": {"context": CONTEXT},
        "out": str(out),
    }
    finished(run_job(runtime.build_job, asked, folder / "build.log"))
    return out


def measured(
    runtime: Runtime, model: Path, environment: dict[str, str], log: Path, seed: int
) -> dict[str, float]:
    settings = {
        "context": CONTEXT,
        "kv": runtime.recipe(RECIPES[runtime.name]).kv,
        "threads": cores().computing,
        "gpu_layers": 0,
    }
    asked = {
        "session": runtime.session,
        "artifact": str(model),
        "settings": settings,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW,
    }
    value = finished(
        run_job(
            "packager.measure.benchmark:measure",
            {**asked, "repeats": 3, "seed": seed},
            log,
            environment,
        )
    ).value
    return {name: value[name] for name in FIGURES}


def rungs(runtime: Runtime, model: Path, rounds: int, log: Path) -> list[dict[str, Any]]:
    assert isinstance(runtime, Laddered)
    found: dict[str, list[dict[str, float]]] = {rung.name: [] for rung in runtime.ladder().rungs}
    died: dict[str, str] = {}
    for number in range(rounds):
        for rung in runtime.ladder().rungs:
            if rung.name in died:
                continue
            try:
                found[rung.name].append(
                    measured(runtime, model, dict(rung.environment), log, 1 + 1000 * number)
                )
            except Died as death:
                died[rung.name] = death.death.words()
    rows: list[dict[str, Any]] = []
    for name, trials in found.items():
        medians = (
            {figure: statistics.median(trial[figure] for trial in trials) for figure in FIGURES}
            if trials
            else {}
        )
        rows.append({"runtime": runtime.name, "rung": name, "died": died.get(name), **medians})
    for row in rows:
        for figure in FIGURES:
            whole = rows[0].get(figure)
            row[f"{figure}_ratio"] = row[figure] / whole if whole and figure in row else None
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", action="append", choices=list(RECIPES))
    given = parser.parse_args()
    variant = catalog.find(given.model)
    assert variant.shape is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job, arguments = sources.job(sources.parse("dummy", variant.repo_id), variant.shape)
        checkpoint = folder / "checkpoint"
        finished(run_job(job, {**arguments, "out": str(checkpoint)}, folder / "fetch.log"))
        rows = []
        for name in given.runtime or RECIPES:
            runtime = registry.runtime(name)
            model = artifact(runtime, checkpoint, folder)
            rows += rungs(runtime, model, given.rounds, folder / "measure.log")
    print(
        "| engine | way | prefill tok/s | ratio | decode tok/s | ratio |\n| --- | --- | ---: | "
        "---: | ---: | ---: |"
    )
    for row in rows:
        if row["died"]:
            print(f"| {row['runtime']} | {row['rung']} | {row['died']} | | | |")
        else:
            shown = [f"{row[figure]:.1f} | {row[f'{figure}_ratio'] or 0:.2f}" for figure in FIGURES]
            print(f"| {row['runtime']} | {row['rung']} | {' | '.join(shown)} |")
    print(
        json.dumps(
            {
                "model": variant.repo_id,
                "machine": describe_machine(),
                "rounds": given.rounds,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
