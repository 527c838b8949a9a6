"""Scores, size and memory of a reranker of the true shape of Qwen3-Reranker-0.6B, random weights,
in three engines, beside transformers in float32.

    python benchmarks/reranker.py --scratch FOLDER [--documents N] [--context N] [--layers N]
                                  [--only RECIPE...]

Every artifact is built once and kept in the scratch folder (8 GB). Per recipe: how far its scores
lie from those of transformers, on average and at most, beside the limit of its class; the bytes of
its files and the peak memory of a fresh process, as predicted and as they are. Memory is that of a
process that measures the package, as `build` does. Exit code 0 where every mean difference is
within the limit of its class, every size within half a per cent, and every prediction of memory
within five per cent. `--layers 2` tries the script on a smaller network, of which the memory is not
predicted as closely. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import PATIENT, finish, found, planned_shape, versions
from benchmarks.footprint import (
    LOW_PERCENT,
    REPEATS,
    SIZE_PERCENT,
    WITHIN_PERCENT,
    gguf_tensor_bytes,
    percent,
)
from packager.cores import cores
from packager.device.this_machine import describe_machine
from packager.files import tree_bytes
from packager.quality import retrieval_limits
from packager.shape import Shape
from packager.units import human_bytes

MODEL = "Qwen/Qwen3-Reranker-0.6B"
RECIPES = (
    *("gguf:F16", "gguf:Q8_0", "gguf:Q4_K_M"),
    *("openvino:bf16", "openvino:int8_asym", "openvino:int4_sym_g128"),
    *("onnx:fp32", "onnx:int8_sym_b32", "onnx:int4_asym_b32_head8", "onnx:int4_sym_b32"),
)
"""Of each engine the highest precision, 8 bits and 4 bits."""
_PROMPT = 1024
"""Tokens that every prompt of the corpus fits into."""


def built(scratch: Path, recipe_id: str, shape: Shape) -> Path:
    """The artifact of a recipe; only whole ones bear its name."""
    checkpoint = scratch / "checkpoint"
    if not checkpoint.is_dir():
        half = scratch / ".checkpoint"
        shutil.rmtree(half, ignore_errors=True)
        finish(
            "packager.sources.dummy:fetch",
            scratch / "build.log",
            repo_id=MODEL,
            shape=asdict(shape),
            out=str(half),
        )
        half.replace(checkpoint)
    folder = scratch / recipe_id.replace(":", "-")
    if not folder.is_dir():
        runtime, recipe = found(recipe_id)
        half = scratch / f".{folder.name}"
        shutil.rmtree(half, ignore_errors=True)
        finish(
            runtime.build_job,
            scratch / "build.log",
            checkpoint=str(checkpoint),
            recipe={**asdict(recipe), "inputs": {"task": "rerank"}},
            workload={"context": shape.context},
            out=str(half),
        )
        half.replace(folder)
    return folder


def row_of(
    recipe_id: str, artifact: Path, shape: Shape, wanted: list[float], options: argparse.Namespace
) -> dict[str, Any]:
    """What was predicted and what there is."""
    runtime, recipe = found(recipe_id)
    settings: dict[str, Any] = {"context": options.context, "kv": recipe.kv, "task": "rerank"}
    settings["threads"] = cores().computing
    order: dict[str, Any] = {
        "session": runtime.retrieval_session,  # type: ignore[attr-defined]
        "artifact": str(artifact),
        "settings": settings,
    }
    log = artifact.parent / "run.log"
    prompts: dict[str, Any] = {"documents": options.documents, "seed": 1}
    prompts["settings"] = {**settings, "context": max(options.context, _PROMPT)}
    scores = finish("benchmarks.retrieval_jobs:scores", log, PATIENT, **{**order, **prompts}).value
    how = {"prompt_tokens": options.context // 2, "repeats": REPEATS}
    peak = finish("packager.measure.retrieval:measure", log, PATIENT, **order, **how).peak_bytes
    differences = [abs(one - other) for one, other in zip(scores["scores"], wanted, strict=True)]
    limits = retrieval_limits.limits(recipe.grade)
    predicted = runtime.footprint(shape, recipe, options.context).peak
    size, files = runtime.artifact_bytes(shape, recipe), tree_bytes(artifact)
    row: dict[str, Any] = {
        "recipe": recipe_id,
        "score_mean": sum(differences) / len(differences),
        "score_max": max(differences),
        "limit": limits.score_mean if limits else None,
        "files_predicted": size,
        "files": files,
        "memory_predicted": predicted,
        "memory": peak,
        "tensors_predicted": runtime.footprint(shape, recipe, 512).weights,
        "size_percent": percent(size, files),
        "memory_percent": percent(predicted, peak),
    }
    row["passed"] = (
        (limits is None or row["score_mean"] <= limits.score_mean)
        and abs(_judged_size(row, artifact)) <= SIZE_PERCENT[runtime.prefix]
        and -LOW_PERCENT <= row["memory_percent"] <= WITHIN_PERCENT
    )
    return row


def _judged_size(row: dict[str, Any], artifact: Path) -> float:
    """How far off the size is in per cent: of a GGUF that of its tensors, as the synthetic
    vocabulary in its header is not as long as the genuine one."""
    if not str(row["recipe"]).startswith("gguf:"):
        return float(row["size_percent"])
    row["tensors"] = gguf_tensor_bytes(artifact)
    return percent(row["tensors_predicted"], row["tensors"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--layers", type=int, help="of a smaller network, to try the script")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES)
    options = parser.parse_args()
    shape, scratch = planned_shape(MODEL), options.scratch.resolve()
    if options.layers is not None:
        shape, scratch = replace(shape, layers=options.layers), scratch / f"layers-{options.layers}"
    scratch.mkdir(parents=True, exist_ok=True)
    artifacts = {recipe_id: built(scratch, recipe_id, shape) for recipe_id in options.only}
    wanted = finish(
        "benchmarks.retrieval_jobs:scores_of_transformers",
        scratch / "run.log",
        PATIENT,
        checkpoint=str(scratch / "checkpoint"),
        documents=options.documents,
        seed=1,
    ).value["scores"]
    print("| recipe | mean difference | limit | largest | files | predicted | memory | predicted |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for recipe_id, artifact in artifacts.items():
        rows.append(row := row_of(recipe_id, artifact, shape, wanted, options))
        sizes = " | ".join(
            human_bytes(row[key])
            for key in ("files", "files_predicted", "memory", "memory_predicted")
        )
        print(
            f"| {recipe_id} | {row['score_mean']:.5f} | {row['limit']} | {row['score_max']:.5f} | "
            f"{sizes} |{'' if row['passed'] else ' missed'}",
            flush=True,
        )
    report = {
        "benchmark": "reranker",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(options.only),
        "model": MODEL,
        "layers": shape.layers,
        "context": options.context,
        "documents": options.documents,
        "spread_of_scores": max(wanted) - min(wanted),
        "rows": rows,
        "passed": all(row["passed"] for row in rows),
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
