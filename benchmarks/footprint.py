"""Peak resident memory and size on disk, predicted beside measured, for runtimes, recipes, shapes,
contexts and cache types.

    python benchmarks/footprint.py [--quick] [--shapes NAME,...] [--runtimes NAME,...]
                                   [--contexts N,...] [--scratch FOLDER]

Artifacts are built from checkpoints with random weights in the true shape: size and memory do not
depend on the values. Each combination is one fresh process that loads the model and fills the whole
context with one prompt, or measures an embedder or a reranker; its peak is VmHWM, which other
programs do not disturb. The full set takes about an hour on two idle cores, 16 GB of memory
(ONNX Runtime's builder) and 10 GB of disk. With --scratch artifacts are kept, and taken as they are
the next time. Exit code 1 when a bar is missed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import (
    PATIENT,
    built,
    finish,
    found,
    planned_shape,
    scratch_folder,
    task_of,
    versions,
)
from packager.device.this_machine import describe_machine
from packager.errors import PackError
from packager.files import tree_bytes
from packager.units import human_bytes

NEW_TOKENS = 8
REPEATS = 2
WITHIN_PERCENT = 5.0
LOW_PERCENT = 2.0
SIZE_PERCENT = {"gguf": 0.1, "openvino": 0.5, "onnx": 0.5}

Combinations = dict[str, dict[str, tuple[int, ...]]]
"""Contexts by shape and recipe."""

_SMALL = {
    "gguf:Q4_K_M": (512, 4096),
    "gguf:Q4_K_M/kv_q8_0": (4096,),
    "gguf:Q8_0": (512,),
    "gguf:Q8_0/kv_q8_0": (4096,),
    "openvino:int4_sym_g128": (512, 4096),
    "openvino:int8_asym": (4096,),
    "onnx:int4_asym_b32": (512, 4096),
}
_RETRIEVAL = dict.fromkeys(
    (
        *("gguf:Q8_0", "gguf:Q4_K_M"),
        *("openvino:int8_asym", "openvino:int4_sym_g128"),
        *("onnx:int8_sym_b32", "onnx:int4_sym_b32"),
    ),
    (512, 2048),
)
QUICK: Combinations = {"Qwen2.5-0.5B-Instruct": _SMALL, "Qwen3-0.6B": _SMALL}

# What one runtime does at one width is no proof for another: every runtime at four widths, the
# shortest and the longest context where the model is small enough to fill it in minutes, every
# cache type.
FULL: Combinations = {
    "Qwen2.5-0.5B-Instruct": {
        **_SMALL,
        "gguf:Q4_K_M": (512, 4096, 16384),
        "gguf:Q4_K_M/kv_q4_0": (4096,),
        "openvino:int4_sym_g128": (512, 4096, 16384),
        "openvino:int4_sym_g128/kv_f16": (4096,),
        "onnx:int4_asym_b32": (512, 4096, 16384),
    },
    "Qwen3-0.6B": _SMALL,
    "Qwen2.5-1.5B-Instruct": {
        "gguf:Q4_K_M": (512, 4096),
        "openvino:int4_sym_g128": (512, 4096),
        "onnx:int4_asym_b32": (2048,),
    },
    "Qwen3-1.7B": {
        "gguf:Q4_K_M/kv_q8_0": (2048,),
        "openvino:int4_sym_g128": (2048,),
        "onnx:int4_asym_b32": (512,),
    },
    "Qwen2.5-3B-Instruct": {"gguf:Q4_K_M": (2048,), "openvino:int4_sym_g128": (2048,)},
    "Qwen3-Embedding-0.6B": _RETRIEVAL,
    "Qwen3-Reranker-0.6B": _RETRIEVAL,
}


def percent(predicted: float, actual: float) -> float:
    """How far the prediction lies above what was measured."""
    return round(100 * (predicted / actual - 1), 3)


def memory_row(name: str, recipe_id: str, context: int, artifact: Path) -> dict[str, Any]:
    """One combination in a fresh process."""
    runtime, recipe = found(recipe_id)
    task = task_of(name)
    predicted = runtime.footprint(planned_shape(name), recipe, context)
    row: dict[str, Any] = {
        "shape": name,
        "recipe": recipe.id,
        "kv": recipe.kv,
        "context": context,
        "predicted": predicted.as_dict(),
    }
    settings = {"context": context, "kv": recipe.kv, "threads": None, "task": task}
    order: dict[str, Any] = {"artifact": str(artifact), "settings": settings}
    if task == "generate":
        job = "benchmarks.jobs:fill_context"
        order |= {"session": runtime.session, "new_tokens": NEW_TOKENS}
        order["prompt_tokens"] = context - NEW_TOKENS
    else:
        # As a package is measured: words of many texts bring in the pages of a mapped embedding.
        job = "packager.measure.retrieval:measure"
        order |= {"session": runtime.retrieval_session, "repeats": REPEATS}  # type: ignore[attr-defined]
        order["prompt_tokens"] = context // 2
    log = artifact.parent / "run.log"
    try:
        result = finish(job, log, PATIENT, **order)
    except PackError as error:
        print(f"{name} {recipe.id} {context}: {error.message}", file=sys.stderr, flush=True)
        return {**row, "failed": error.message, "passed": False}
    error_percent = percent(predicted.peak, result.peak_bytes)
    row |= {
        "measured_bytes": result.peak_bytes,
        "error_percent": error_percent,
        "seconds": round(result.seconds, 1),
    }
    row["passed"] = -LOW_PERCENT <= error_percent <= WITHIN_PERCENT
    print(
        f"| {name} | {recipe.id} | {recipe.kv} | {context} | {human_bytes(predicted.peak)} | "
        f"{human_bytes(result.peak_bytes)} "
        f"| {error_percent:+.1f} % |{'' if row['passed'] else ' missed'}",
        flush=True,
    )
    return row


def size_row(name: str, recipe_id: str, artifact: Path) -> dict[str, Any]:
    """One artifact on disk; of a GGUF also the tensors alone, which the bar is about: its header
    holds the vocabulary.

    Vocabularies are predicted at the length of the genuine one, and the checkpoint has a synthetic
    one.
    """
    runtime, recipe = found(recipe_id)
    shape = planned_shape(name)
    predicted, actual = runtime.artifact_bytes(shape, recipe), tree_bytes(artifact)
    row: dict[str, Any] = {
        "shape": name,
        "recipe": artifact.name.replace("-", ":", 1),
        "predicted_bytes": predicted,
        "measured_bytes": actual,
        "error_percent": percent(predicted, actual),
    }
    judged = row["error_percent"]
    if runtime.prefix == "gguf":
        row |= {
            "predicted_tensor_bytes": runtime.footprint(shape, recipe, 512).weights,
            "tensor_bytes": gguf_tensor_bytes(artifact),
        }
        judged = row["tensor_error_percent"] = percent(
            row["predicted_tensor_bytes"], row["tensor_bytes"]
        )
    row["passed"] = abs(judged) <= SIZE_PERCENT[runtime.prefix]
    return row


def gguf_tensor_bytes(artifact: Path) -> int:
    """Size of a GGUF behind its header, as the format's own library reads it."""
    # Reading brings numpy with it; only this function needs it.
    from gguf import GGUFReader

    (file,) = artifact.glob("*.gguf")
    return file.stat().st_size - int(GGUFReader(file).data_offset)


def print_sizes(rows: list[dict[str, Any]]) -> None:
    print("\n| shape | recipe | files predicted | files | error | tensors predicted | tensors |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        tensors = (
            f"{row['predicted_tensor_bytes']:,} | {row['tensor_bytes']:,}"
            if "tensor_bytes" in row
            else "|"
        )
        print(
            f"| {row['shape']} | {row['recipe']} | {row['predicted_bytes']:,} | "
            f"{row['measured_bytes']:,} "
            f"| {row['error_percent']:+.3f} % | {tensors} |{'' if row['passed'] else ' missed'}"
        )


def one_shape(
    name: str, recipes: dict[str, tuple[int, ...]], scratch: Path, kept: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of memory and rows of size."""
    artifacts, failures = built(name, recipes, scratch)
    sizes = [
        size_row(name, recipe, place)
        for place, recipe in {place: recipe for recipe, place in artifacts.items()}.items()
    ]
    rows = [
        memory_row(name, recipe, context, artifacts[recipe])
        for recipe in artifacts
        for context in recipes[recipe]
    ]
    rows += [
        {"shape": name, "recipe": recipe, "failed": why, "passed": False}
        for recipe, why in failures.items()
    ]
    if not kept:
        # The next shape needs the room.
        shutil.rmtree(scratch / name, ignore_errors=True)
    return rows, sizes


def chosen(options: argparse.Namespace) -> Combinations:
    """What the options leave of the set."""
    left: Combinations = {}
    for name, recipes in (QUICK if options.quick else FULL).items():
        for recipe, contexts in recipes.items():
            runtime = found(recipe)[0].name
            wanted = tuple(
                context
                for context in contexts
                if options.contexts is None or str(context) in options.contexts
            )
            if (
                wanted
                and (options.shapes is None or name in options.shapes)
                and (options.runtimes is None or runtime in options.runtimes)
            ):
                left.setdefault(name, {})[recipe] = wanted
    return left


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="0.5B and 0.6B at 512 and 4096 only")
    for what, example in (
        ("shapes", ", ".join(FULL)),
        ("runtimes", "llama.cpp, openvino, onnxruntime"),
        ("contexts", "512, 4096"),
    ):
        parser.add_argument(
            f"--{what}", type=lambda text: text.split(","), help=f"only these of the set: {example}"
        )
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    combinations = chosen(options)
    if not combinations:
        parser.error("nothing of the set is left")
    rows: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    print(
        "| shape | recipe | cache | context | predicted | measured | error |\n| --- | --- | --- | "
        "---: | ---: | ---: | ---: |",
        flush=True,
    )
    with scratch_folder(options.scratch) as scratch:
        for name, recipes in combinations.items():
            more, more_sizes = one_shape(name, recipes, scratch, options.scratch is not None)
            rows, sizes = rows + more, sizes + more_sizes
    print_sizes(sizes)
    passed = all(row["passed"] for row in rows + sizes)
    report = {
        "benchmark": "footprint",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(recipe for recipes in combinations.values() for recipe in recipes),
        "bars": {
            "within_percent": WITHIN_PERCENT,
            "low_percent": LOW_PERCENT,
            "size_percent": SIZE_PERCENT,
        },
        "memory": rows,
        "sizes": sizes,
        "passed": passed,
    }
    print(json.dumps(report))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
