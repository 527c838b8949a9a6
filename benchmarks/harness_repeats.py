"""Whether a measurement repeats itself: five whole runs in a row, and one with a busy program on
every core beside it.

    python benchmarks/harness_repeats.py --scratch FOLDER [--build-only] [--model NAME]
                                         [--recipe ID] [--runs N] [--skip-busy]
    python benchmarks/harness_repeats.py --scratch FOLDER --checkpoint tests/models/tiny-qwen3
                                         --recipe gguf:Q8_0

The runs are those of a build (threads searched, five repeats, noise measured again). On an idle
machine the figures of all runs lie within five per cent of one another; beside busy programs the
measurement says noisy. Exit code 0 only where both hold and no run of the idle machine was noisy.
The artifact has random weights in the true shape and stays in the scratch folder. A checkpoint of a
few million parameters lies in the processor's cache: with it the harness is seen by itself, where
the memory of a virtual machine's host has several users. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import built, found, versions
from packager.device.this_machine import describe_machine
from packager.measure import measurement as harness
from packager.pipeline import stages

FIGURES = (
    "decode_tps",
    "ttft_ms",
    "prefill_128_tps",
    "prefill_512_tps",
    "decode_empty_tps",
    "decode_full_tps",
)
BAR_PERCENT = 5.0
BUSY = Path(__file__).resolve().parent.parent / "tests" / "support" / "busy.py"


def one_run(recipe_id: str, artifact: Path, context: int, prompt: int) -> dict[str, Any]:
    runtime, recipe = found(recipe_id)
    job = stages.benchmark(
        runtime.session, artifact, {"context": context, "kv": recipe.kv, "threads": None}, prompt
    )
    work = harness.run(job.job, job.arguments, artifact.parent / "run.log")
    began = time.monotonic()
    while True:
        try:
            next(work)
        except StopIteration as stop:
            figures: dict[str, Any] = stop.value.value
            break
    kept = (
        "threads",
        "load_s",
        "load_cold_s",
        "spread",
        "ttft_spread",
        "other_cpu_cores",
        "noisy",
        "noisy_because",
        "attempts",
        "left_out",
    )
    seen = {name: figures[name] for name in (*FIGURES, *kept, "full_context_tokens")} | {
        "whole_s": time.monotonic() - began
    }
    print(json.dumps(seen), flush=True)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--checkpoint", type=Path, help="build from this folder instead")
    parser.add_argument("--recipe", default="gguf:Q4_K_M")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip-busy", action="store_true")
    options = parser.parse_args()
    name = options.checkpoint.name if options.checkpoint else options.model
    artifact = built(
        name, [options.recipe], options.scratch / "artifacts", options.checkpoint, options.context
    )[0][options.recipe]
    if options.build_only:
        print(json.dumps({"built": str(artifact)}))
        return 0
    runs = [
        one_run(options.recipe, artifact, options.context, options.prompt)
        for _ in range(options.runs)
    ]
    beside = None
    if not options.skip_busy:
        busy = [
            subprocess.Popen([sys.executable, str(BUSY), "900"]) for _ in range(os.cpu_count() or 1)
        ]
        try:
            beside = one_run(
                options.recipe, artifact, min(options.context, 1024), min(options.prompt, 128)
            )
        finally:
            for program in busy:
                program.kill()
                program.wait()
    apart = {}
    for figure in FIGURES:
        values = [run[figure] for run in runs if run[figure] is not None]
        apart[figure] = (
            100 * (max(values) - min(values)) / statistics.median(values) if values else None
        )
        print(
            f"{figure:18} {', '.join(f'{value:.1f}' for value in values)}: "
            f"{apart[figure] or 0:.1f} % apart"
        )
    clean = not any(run["noisy"] for run in runs)
    within = all(value is None or value <= BAR_PERCENT for value in apart.values())
    told = beside is None or beside["noisy"]
    report = {
        "benchmark": "harness_repeats",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions([options.recipe]),
        "model": name,
        "recipe": options.recipe,
        "runs": runs,
        "apart_percent": apart,
        "bar_percent": BAR_PERCENT,
        "beside_busy_programs": beside,
        "clean": clean,
        "passed": (within and told) if clean else None,
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
