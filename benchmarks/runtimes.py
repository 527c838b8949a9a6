"""One checkpoint through every runtime: size, memory, first token, prefill, decode, and how near
decoding comes to the memory's rate.

    python benchmarks/runtimes.py --build [--scratch FOLDER] ...        build the artifacts and stop
    python benchmarks/runtimes.py [--scratch FOLDER] [--models NAME ...] [--recipes ID ...]
                                  [--context N] [--prompt N] [--rounds N]

The checkpoint has random weights in the variant's shape; artifacts that lie in the scratch folder
are taken as they are, so that building and measuring can be done apart. The roof is what this
machine reads from memory (products of float32 matrices with a vector, in numpy) over the bytes that
a token takes. Runtimes take turns, so that a busy spell hits all of them; figures are medians over
the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import built, finish, found, scratch_folder, shape_of, versions
from packager.cores import cores
from packager.device.this_machine import describe_machine
from packager.files import tree_bytes
from packager.shape import Shape
from packager.units import human_bytes

RECIPES = ("gguf:Q4_K_M", "openvino:int4_sym_g128", "onnx:int4_asym_b32")
NEW_TOKENS = 48
ROOF_BYTES = 400_000_000
MEDIANS = ("load_s", "ttft_ms", "prefill_tps", "decode_tps", "token_ms_p95", "peak_memory_bytes")


def memory_rate(log: Path) -> tuple[float, float]:
    """Bytes per second that this machine reads from memory, and the share of the processors that
    others had meanwhile."""
    seen = finish(
        "targets.machine.measure:measure_job",
        log,
        engines=["numpy"],
        cores=cores().computing,
        bytes_total=ROOF_BYTES,
        budget_s=6.0,
    ).value
    return max(kernel["bandwidth"] for kernel in seen["kernels"]), seen["other_load"]


def measure(
    shape: Shape, recipe_id: str, artifact: Path, options: argparse.Namespace, log: Path
) -> dict[str, Any]:
    """One more round of one runtime, with the memory's rate seen directly before it."""
    runtime, recipe = found(recipe_id)
    rate, others = memory_rate(log)
    settings = {"context": options.context, "kv": recipe.kv, "threads": None}
    how = {
        "settings": settings,
        "prompt_tokens": options.prompt,
        "new_tokens": NEW_TOKENS,
        "repeats": 2,
    }
    figures = finish(
        "packager.measure.benchmark:measure",
        log,
        session=runtime.session,
        artifact=str(artifact),
        **how,
    ).value
    read = runtime.decode_bytes(shape, recipe, options.prompt + NEW_TOKENS // 2)
    seen = {name: figures[name] for name in (*MEDIANS, "noisy", "other_cpu_cores")}
    print(
        f"{artifact.parent.name} {recipe_id}: {figures['decode_tps']:.1f} tok/s of "
        f"{rate / read:.0f}",
        file=sys.stderr,
        flush=True,
    )
    return {
        **seen,
        "memory_rate": rate,
        "other_load": others,
        "bytes_per_token": read,
        "roof_tps": rate / read,
    }


def summary(
    shape: Shape, recipe_id: str, artifact: Path, rounds: list[dict[str, Any]], context: int
) -> dict[str, Any]:
    """Medians over the rounds beside what was predicted; noisy where any round was."""
    runtime, recipe = found(recipe_id)
    return {
        "recipe": recipe_id,
        "artifact_bytes": tree_bytes(artifact),
        "predicted_artifact_bytes": runtime.artifact_bytes(shape, recipe),
        "predicted_peak_bytes": runtime.footprint(shape, recipe, context).peak,
        **{
            name: statistics.median(one[name] for one in rounds)
            for name in (*MEDIANS, "memory_rate", "bytes_per_token", "roof_tps")
        },
        "roof_percent": statistics.median(
            100 * one["decode_tps"] / one["roof_tps"] for one in rounds
        ),
        "noisy": any(one["noisy"] for one in rounds),
        "other_cpu_cores": [one["other_cpu_cores"] for one in rounds],
    }


def table(name: str, rows: list[dict[str, Any]]) -> None:
    print(
        f"\n| {name} | files | peak memory | first token | prefill tok/s | decode tok/s | roof "
        "tok/s | of the roof |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['recipe']} | {human_bytes(row['artifact_bytes'])} | "
            f"{human_bytes(row['peak_memory_bytes'])} | {row['ttft_ms']:.0f} ms "
            f"| {row['prefill_tps']:.0f} | {row['decode_tps']:.1f} | {row['roof_tps']:.0f} | "
            f"{row['roof_percent']:.0f} % |"
        )


def one_model(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    shape, log = shape_of(name), scratch / "log"
    artifacts, failed = built(name, options.recipes, scratch)
    if options.build:
        return {"model": name, "built": list(artifacts), "failed": failed}
    rounds: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in artifacts}
    for _ in range(options.rounds):
        for recipe, artifact in artifacts.items():
            rounds[recipe].append(measure(shape, recipe, artifact, options, log))
    rows = [
        summary(shape, recipe, artifact, rounds[recipe], options.context)
        for recipe, artifact in artifacts.items()
    ]
    table(name, rows)
    return {"model": name, "rows": rows, "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--models", nargs="+", default=["Qwen2.5-0.5B-Instruct", "Qwen3-0.6B"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with scratch_folder(options.scratch) as scratch:
        models = [one_model(name, options, scratch) for name in options.models]
    how = {
        "context": options.context,
        "prompt": options.prompt,
        "new_tokens": NEW_TOKENS,
        "rounds": options.rounds,
    }
    print(
        json.dumps(
            {
                "machine": describe_machine(),
                "versions": versions(options.recipes),
                **how,
                "models": models,
            }
        )
    )


if __name__ == "__main__":
    main()
