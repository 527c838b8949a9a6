"""What every recipe loses against an unquantized checkpoint, by its own engine's logits, beside
what its class may lose.

    python benchmarks/quality.py CHECKPOINT [--recipes gguf:Q4_K_M,openvino:int8_asym]
                                 [--tokens 2048]

Builds each recipe of this machine's runtimes in a scratch folder; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifacts import finish, found

from packager.checkpoint import Checkpoint
from packager.errors import PackError
from packager.quality.thresholds import limits, tokens_for
from packager.quality.verdict import rows
from packager.records.quality import QualityFigures
from packager.shape import Shape
from targets import registry


def recipes(shape: Shape) -> list[str]:
    """Every recipe that this machine's processor runs and this shape allows."""
    return [
        recipe.id
        for runtime in registry.runtimes()
        for recipe in runtime.recipes()
        if recipe.provider in (None, "cpu") and runtime.obstacle(shape, recipe) is None
    ]


def measure(
    checkpoint: Path, wanted: list[str], tokens: int | None, scratch: Path
) -> dict[str, Any]:
    """Figures by recipe, and the seconds that they took."""
    shape = Checkpoint.open(checkpoint).shape
    count = tokens or tokens_for(shape.parameters())
    log = scratch / "log"
    read = {"checkpoint": str(checkpoint), "text": None, "tokens": count}
    kept = finish("packager.quality.job:reference", log, out=str(scratch / "reference"), **read)
    result: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "tokens": count,
        "reference_seconds": round(kept.seconds, 2),
        "recipes": {},
    }
    for recipe_id in wanted or recipes(shape):
        runtime, recipe = found(recipe_id)
        out = scratch / recipe_id.replace(":", "-").replace("/", "-")
        try:
            workload = {"context": 1024}
            finish(
                runtime.build_job,
                log,
                checkpoint=str(checkpoint),
                recipe=asdict(recipe),
                workload=workload,
                out=str(out),
            )
            started = time.monotonic()
            settings = {"kv": recipe.kv, "threads": None}
            ways = {
                "session": runtime.session,
                "artifact": str(out),
                "settings": settings,
                "reference": str(scratch / "reference"),
                "stops": True,
            }
            facts = finish("packager.quality.job:compare", log, **ways, **read).value
        except PackError as error:
            print(f"{recipe_id:<34} {error.message}", flush=True)
            continue
        figures, limit = facts["figures"], limits(recipe.grade)
        judged = rows(QualityFigures.from_json(figures), limit) if limit else ()
        missed = [row.rule for row in judged if not row.passed]
        seconds = round(time.monotonic() - started, 2)
        result["recipes"][recipe_id] = {
            "grade": recipe.grade,
            **figures,
            "missed": missed,
            "seconds": seconds,
            "parts": facts["parts"],
        }
        shown = (
            f"{figures['kl_mean']:.5f} {figures['kl_p95']:.4f} {figures['kl_max']:.3f} "
            f"{figures['top1']:7.2%}"
        )
        print(
            f"{recipe_id:<34} {shown} {figures['perplexity_ratio']:.4f} {seconds:5.1f} s  "
            f"{', '.join(missed)}",
            flush=True,
        )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--recipes", default="", help="recipe ids with commas between them; all by default"
    )
    parser.add_argument("--tokens", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qwen-pack-quality-") as folder:
        result = measure(
            given.checkpoint.absolute(),
            [name for name in given.recipes.split(",") if name],
            given.tokens,
            Path(folder),
        )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
