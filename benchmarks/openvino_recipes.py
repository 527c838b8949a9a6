"""Every OpenVINO recipe on a true shape: predicted and built size, predicted and measured peak
memory, build cost, speed, divergence.

    python benchmarks/openvino_recipes.py --scratch FOLDER [--model NAME] [--recipes R ...]
                                          [--contexts N ...] [--kv TYPE ...] [--rounds N] [--keep]

The checkpoint has random weights in the variant's shape. Memory is the peak of a process that fills
the whole context. Speed is that of a prompt of 256 tokens: medians over `--rounds`, in which the
recipes take turns. Divergence is the mean over random tokens of the Kullback-Leibler divergence
from the first of `--recipes`, so that one has to be the unquantized. `--keep` leaves what was built
for the next run. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from packager import catalog
from packager.device.this_machine import describe_machine
from packager.engines import installed
from packager.files import tree_bytes
from packager.process import JobResult, run_job
from packager.recipe import Recipe
from packager.shape import Shape
from packager.units import human_bytes
from targets.openvino import OpenVino

RUNTIME = OpenVino()
NEW_TOKENS = 8
PROMPT = 256
TOKENS = 96
SPEEDS = ("ttft_ms", "prefill_tps", "decode_tps")


def finish(job: str, log: Path, **arguments: Any) -> JobResult:
    work = run_job(job, arguments, log)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: JobResult = stop.value
            return result


def measure(
    artifact: Path, recipe: Recipe, context: int, prompt: int, new_tokens: int, log: Path
) -> dict[str, Any]:
    settings = {"context": context, "kv": recipe.kv, "threads": None}
    sizes = {"prompt_tokens": prompt, "new_tokens": new_tokens, "repeats": 1}
    return finish(
        "packager.measure.benchmark:measure",
        log,
        session=RUNTIME.session,
        artifact=str(artifact),
        settings=settings,
        **sizes,
    ).value


def error(predicted: float, actual: float) -> float:
    """Percent that the prediction lies above what was measured."""
    return round(100 * (predicted / actual - 1), 3)


def build(
    shape: Shape, checkpoint: Path, recipe: Recipe, scratch: Path
) -> tuple[Path, dict[str, Any]]:
    out = scratch / recipe.weights
    built = finish(
        RUNTIME.build_job,
        scratch / "log",
        checkpoint=str(checkpoint),
        recipe=asdict(recipe),
        workload={},
        out=str(out),
    )
    size, needs = tree_bytes(out), RUNTIME.build_needs(shape, recipe)
    row = {
        "artifact_bytes": size,
        "artifact_error_percent": error(RUNTIME.artifact_bytes(shape, recipe), size),
        "build_s": round(built.seconds, 1),
        "build_peak_bytes": built.peak_bytes,
        "build_peak_error_percent": error(needs.memory, built.peak_bytes),
    }
    print(
        f"{recipe.weights:15} {human_bytes(size)} ({row['artifact_error_percent']:+.2f} %), built "
        f"in {built.seconds:.0f} s",
        flush=True,
    )
    return out, row


def expected(artifact: Path, log: Path) -> Any:
    out = artifact.with_suffix(".npy")
    finish(
        "benchmarks.jobs:log_probabilities",
        log,
        artifact=str(artifact),
        tokens=TOKENS,
        out=str(out),
    )
    found = np.load(out)
    out.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument(
        "--recipes", nargs="+", default=[recipe.weights for recipe in RUNTIME.recipes()]
    )
    parser.add_argument("--contexts", nargs="*", type=int, default=[512, 4096])
    parser.add_argument("--kv", nargs="+", default=["u8"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--keep", action="store_true", help="keep what was built, and build on it in the next run"
    )
    options = parser.parse_args()
    variant = catalog.find(options.model)
    shape = variant.shape
    assert shape is not None
    scratch = options.scratch / variant.name
    scratch.mkdir(parents=True, exist_ok=options.keep)
    log = scratch / "log"
    rows: dict[str, dict[str, Any]] = {}
    try:
        checkpoint = scratch / "checkpoint"
        if not checkpoint.is_dir():
            finish(
                "packager.sources.dummy:fetch",
                log,
                repo_id=variant.repo_id,
                shape=asdict(shape),
                out=str(checkpoint),
            )
        for weights in options.recipes:
            kept = scratch / f"{weights}.json"
            if kept.is_file():
                rows[weights] = json.loads(kept.read_text())
                continue
            _, rows[weights] = build(shape, checkpoint, RUNTIME.recipe(weights), scratch)
            kept.write_text(json.dumps(rows[weights]))
        unquantized = expected(scratch / options.recipes[0], log)
        for weights, row in rows.items():
            other = expected(scratch / weights, log)
            row["divergence"] = float(
                (np.exp(unquantized) * (unquantized - other)).sum(axis=-1).mean()
            )
            print(f"{weights:15} divergence {row['divergence']:.6f}", flush=True)
        seen: dict[str, list[dict[str, Any]]] = {weights: [] for weights in rows}
        for _ in range(options.rounds):
            for weights, figures in seen.items():
                figures.append(
                    measure(scratch / weights, RUNTIME.recipe(weights), 2 * PROMPT, PROMPT, 32, log)
                )
        for weights, row in rows.items():
            row |= {
                name: statistics.median(one[name] for one in seen[weights])
                for name in SPEEDS
                if seen[weights]
            }
            row["noisy"] = any(one["noisy"] for one in seen[weights])
            print(
                f"{weights:15} { ({name: round(row[name], 1) for name in SPEEDS if name in row}) }",
                flush=True,
            )
            row["memory"] = []
            for kv in options.kv:
                for context in options.contexts:
                    recipe = RUNTIME.recipe(weights, kv)
                    peak = measure(
                        scratch / weights, recipe, context, context - NEW_TOKENS, NEW_TOKENS, log
                    )["peak_memory_bytes"]
                    off = error(RUNTIME.footprint(shape, recipe, context).peak, peak)
                    print(
                        f"{recipe.id} {context:6}: {human_bytes(peak)} ({off:+.2f} %)", flush=True
                    )
                    row["memory"].append(
                        {
                            "kv": kv,
                            "context": context,
                            "peak_bytes": peak,
                            "peak_error_percent": off,
                        }
                    )
    finally:
        if not options.keep:
            shutil.rmtree(scratch)
    versions = {name: installed(name) for name in RUNTIME.distributions}
    print(
        json.dumps(
            {
                "machine": describe_machine(),
                "versions": versions,
                "model": variant.repo_id,
                "rounds": options.rounds,
                "recipes": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
