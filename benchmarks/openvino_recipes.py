"""Every OpenVINO recipe on a true shape: predicted and built size, predicted and measured peak memory, build cost, speed.

    python benchmarks/openvino_recipes.py --scratch FOLDER [--model NAME] [--recipes R ...] [--contexts N ...] [--kv TYPE ...]

The checkpoint has random weights in the variant's shape. Memory is the peak of a process that fills the whole context;
speed is that of a prompt of 256 tokens. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager import catalog
from packager.files import tree_bytes
from packager.process import JobResult, run_job
from packager.recipe import Recipe
from packager.shape import Shape
from packager.units import human_bytes
from targets.openvino import OpenVino

RUNTIME = OpenVino()
NEW_TOKENS = 8
PROMPT = 256


def finish(job: str, log: Path, **arguments: Any) -> JobResult:
    work = run_job(job, arguments, log)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: JobResult = stop.value
            return result


def measure(artifact: Path, recipe: Recipe, context: int, prompt: int, new_tokens: int, log: Path) -> dict[str, Any]:
    settings = {"context": context, "kv": recipe.kv, "threads": None}
    sizes = {"prompt_tokens": prompt, "new_tokens": new_tokens, "repeats": 1}
    return finish("packager.smoke:measure", log, session=RUNTIME.session, artifact=str(artifact), settings=settings, **sizes).value


def error(predicted: float, actual: float) -> float:
    """Percent that the prediction lies above what was measured."""
    return round(100 * (predicted / actual - 1), 3)


def build(shape: Shape, checkpoint: Path, recipe: Recipe, scratch: Path) -> tuple[Path, dict[str, Any]]:
    out = scratch / recipe.weights
    built = finish(RUNTIME.build_job, scratch / "log", checkpoint=str(checkpoint), recipe=asdict(recipe), workload={}, out=str(out))
    size, needs = tree_bytes(out), RUNTIME.build_needs(shape, recipe)
    row = {
        "artifact_bytes": size,
        "artifact_error_percent": error(RUNTIME.artifact_bytes(shape, recipe), size),
        "build_s": round(built.seconds, 1),
        "build_peak_bytes": built.peak_bytes,
        "build_peak_error_percent": error(needs.memory, built.peak_bytes),
    }
    print(f"{recipe.weights:15} {human_bytes(size)} ({row['artifact_error_percent']:+.2f} %), built in {built.seconds:.0f} s", flush=True)
    return out, row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--recipes", nargs="+", default=[recipe.weights for recipe in RUNTIME.recipes()])
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 4096])
    parser.add_argument("--kv", nargs="+", default=["u8"])
    options = parser.parse_args()
    variant = catalog.find(options.model)
    shape = variant.shape
    assert shape is not None
    scratch = options.scratch / variant.name
    scratch.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    try:
        checkpoint = scratch / "checkpoint"
        finish("packager.sources.dummy:fetch", scratch / "log", repo_id=variant.repo_id, shape=asdict(shape), out=str(checkpoint))
        for weights in options.recipes:
            artifact, row = build(shape, checkpoint, RUNTIME.recipe(weights), scratch)
            speed = measure(artifact, RUNTIME.recipe(weights), 2 * PROMPT, PROMPT, 32, scratch / "log")
            row |= {key: speed[key] for key in ("ttft_ms", "decode_tps", "noisy")}
            for kv in options.kv:
                for context in options.contexts:
                    recipe = RUNTIME.recipe(weights, kv)
                    peak = measure(artifact, recipe, context, context - NEW_TOKENS, NEW_TOKENS, scratch / "log")["peak_memory_bytes"]
                    off = error(RUNTIME.footprint(shape, recipe, context).peak, peak)
                    print(f"    {recipe.kv} {context:6}: {human_bytes(peak)} ({off:+.2f} %)", flush=True)
                    rows.append({"recipe": recipe.id, "context": context, "peak_bytes": peak, "peak_error_percent": off, **row})
            shutil.rmtree(artifact)
    finally:
        shutil.rmtree(scratch)
    print(json.dumps({"model": variant.repo_id, "rows": rows}))


if __name__ == "__main__":
    main()
