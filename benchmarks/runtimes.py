"""One checkpoint through every runtime: size, memory, first token, prefill, decode, and how near decoding comes to the memory's rate.

    python benchmarks/runtimes.py --scratch FOLDER [--models NAME ...] [--recipes ID ...] [--context N] [--prompt N] [--rounds N]

The checkpoint has random weights in the variant's shape. The roof is what this machine reads from memory (products of float32
matrices with a vector, in numpy) over the bytes that a token takes. Runtimes take turns, so that a busy spell hits all of them;
figures are medians over the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager import catalog
from packager.files import tree_bytes
from packager.machine import describe_machine
from packager.plan import installed
from packager.process import JobResult, run_job
from packager.recipe import Recipe, split_id
from packager.runtime import Runtime
from packager.shape import Shape
from packager.units import human_bytes
from targets import registry

RECIPES = ("gguf:Q4_K_M", "openvino:int4_sym_g128", "onnx:int4_asym_b32")
NEW_TOKENS = 48
ROOF_BYTES = 400_000_000
MEDIANS = ("load_s", "ttft_ms", "prefill_tps", "decode_tps", "token_ms_p95", "peak_memory_bytes")


def finish(job: str, log: Path, **arguments: Any) -> JobResult:
    work = run_job(job, arguments, log)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: JobResult = stop.value
            return result


def found(recipe_id: str) -> tuple[Runtime, Recipe]:
    prefix, weights, kv = split_id(recipe_id)
    runtime = next(runtime for runtime in registry.runtimes() if runtime.prefix == prefix)
    return runtime, runtime.recipe(weights, kv)


def memory_rate(log: Path) -> tuple[float, float]:
    """Bytes per second that this machine reads from memory, and the share of the processors that others had meanwhile."""
    cores = len(os.sched_getaffinity(0))
    seen = finish("targets.measure:measure_job", log, engines=["numpy"], cores=cores, bytes_total=ROOF_BYTES, budget_s=10.0).value
    return max(kernel["bandwidth"] for kernel in seen["kernels"]), seen["other_load"]


def build(shape: Shape, checkpoint: Path, recipe_id: str, context: int, scratch: Path) -> dict[str, Any]:
    runtime, recipe = found(recipe_id)
    out = scratch / recipe_id.replace(":", "-")
    built = finish(
        runtime.build_job, scratch / "log", checkpoint=str(checkpoint), recipe=asdict(recipe), workload={"context": context}, out=str(out)
    )
    size = tree_bytes(out)
    print(f"{recipe_id:24} {human_bytes(size)}, built in {built.seconds:.0f} s with {human_bytes(built.peak_bytes)}", flush=True)
    return {
        "recipe": recipe_id,
        "artifact": str(out),
        "artifact_bytes": size,
        "predicted_artifact_bytes": runtime.artifact_bytes(shape, recipe),
        "predicted_peak_bytes": runtime.footprint(shape, recipe, context).peak,
        "build_s": round(built.seconds, 1),
        "build_peak_bytes": built.peak_bytes,
        "rounds": [],
    }


def measure(shape: Shape, row: dict[str, Any], context: int, prompt: int, log: Path) -> None:
    """One more round of one runtime, with the memory's rate seen directly before it."""
    runtime, recipe = found(row["recipe"])
    rate, others = memory_rate(log)
    settings = {"context": context, "kv": recipe.kv, "threads": None}
    how = {"settings": settings, "prompt_tokens": prompt, "new_tokens": NEW_TOKENS, "repeats": 2}
    figures = finish("packager.smoke:measure", log, session=runtime.session, artifact=row["artifact"], **how).value
    read = runtime.decode_bytes(shape, recipe, prompt + NEW_TOKENS // 2)
    seen = {name: figures[name] for name in (*MEDIANS, "noisy", "other_cpu_cores")}
    roof = rate / read
    row["rounds"].append({**seen, "memory_rate": rate, "other_load": others, "bytes_per_token": read, "roof_tps": roof})


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Medians over the rounds; noisy where any round was."""
    rounds = row.pop("rounds")
    row.pop("artifact")
    row |= {name: statistics.median(one[name] for one in rounds) for name in (*MEDIANS, "memory_rate", "bytes_per_token", "roof_tps")}
    row["roof_percent"] = statistics.median(100 * one["decode_tps"] / one["roof_tps"] for one in rounds)
    row["noisy"] = any(one["noisy"] for one in rounds)
    row["other_cpu_cores"] = [one["other_cpu_cores"] for one in rounds]
    return row


def table(rows: list[dict[str, Any]]) -> None:
    print("\n| recipe | files | peak memory | first token | prefill tok/s | decode tok/s | roof tok/s | of the roof |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['recipe']} | {human_bytes(row['artifact_bytes'])} | {human_bytes(row['peak_memory_bytes'])} | {row['ttft_ms']:.0f} ms "
            f"| {row['prefill_tps']:.0f} | {row['decode_tps']:.1f} | {row['roof_tps']:.0f} | {row['roof_percent']:.0f} % |"
        )


def one_model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    variant = catalog.find(name)
    shape = variant.shape
    assert shape is not None
    scratch = options.scratch / variant.name
    scratch.mkdir(parents=True)
    log = scratch / "log"
    print(f"\n{variant.name}", flush=True)
    try:
        checkpoint = scratch / "checkpoint"
        finish("packager.sources.dummy:fetch", log, repo_id=variant.repo_id, shape=asdict(shape), out=str(checkpoint))
        rows = [build(shape, checkpoint, recipe, options.context, scratch) for recipe in options.recipes]
        for _ in range(options.rounds):
            for row in rows:
                measure(shape, row, options.context, options.prompt, log)
    finally:
        shutil.rmtree(scratch)
    rows = [summary(row) for row in rows]
    table(rows)
    return {"model": variant.repo_id, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["Qwen2.5-0.5B-Instruct", "Qwen3-0.6B"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    models = [one_model(name, options) for name in options.models]
    engines = sorted({name for recipe in options.recipes for name in found(recipe)[0].distributions})
    how = {"context": options.context, "prompt": options.prompt, "new_tokens": NEW_TOKENS, "rounds": options.rounds}
    versions = {name: installed(name) for name in engines}
    print(json.dumps({"machine": describe_machine(), "versions": versions, **how, "models": models}))


if __name__ == "__main__":
    main()
