"""Decode rate and time to the first token, predicted from this machine's two rates beside measured.

    python benchmarks/forecast.py [--shapes NAME,...] [--recipes ID,...] [--rounds N]
                                  [--scratch FOLDER]

In every round the machine is probed before and after each artifact is measured
(packager.measure.benchmark, prompt of 512 tokens): the rates of a virtual machine change within
seconds, and a forecast is about the machine that is measured. A prediction takes the mean of the
probes on both sides; the error is the median over the rounds of each round's own, and its quartiles
say how far one round may lie off. Only an idle machine gives an answer: when a probe or a
measurement says that others were at work, the result is not clean, and `passed` is null whatever
the errors are. Artifacts have random weights in the true shape; with --scratch they are kept, and
taken as they are the next time. Exit code 0 only for a clean result within the bars. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import built, finish, found, scratch_folder, shape_of, versions
from packager.device.this_machine import describe_machine
from packager.measure.benchmark import NEW_TOKENS
from packager.measure.noise import BUSY_CORES, allowed_attempts
from packager.predict.forecast import Extra, Forecast, predict
from targets import registry
from targets.machine import probe
from targets.machine.isa import processor

SHAPES = ("Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2.5-1.5B-Instruct")
RECIPES = (
    "gguf:Q4_K_M",
    "gguf:Q8_0",
    "openvino:int4_sym_g128",
    "openvino:int8_asym",
    "onnx:int4_asym_b32",
)
PROMPT = 512
CONTEXT = 1024
REPEATS = 2
CALM_S = 10.0
BARS_PERCENT = {"decode_tps": 15.0, "ttft_ms": 25.0}
PROBED = (
    "engine",
    "bandwidth",
    "compute",
    "operation_s",
    "threads",
    "threads_batch",
    "noisy",
    "other_load",
)
SEEN = ("decode_tps", "ttft_ms", "threads", "spread", "noisy", "other_cpu_cores")


def probed() -> dict[str, Any]:
    """The rates of this machine, measured now, and again while disturbed; what `qwen-pack probe`
    keeps is neither read nor replaced."""
    for _ in range(allowed_attempts()):
        found = one_probe()
        if not found["noisy"]:
            break
        time.sleep(CALM_S)
    return found


def one_probe() -> dict[str, Any]:
    work = probe.measure(probe.look(), registry.environment_of)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return {field: getattr(stop.value, field) for field in PROBED}


def measured(recipe_id: str, artifact: Path) -> dict[str, Any]:
    runtime, recipe = found(recipe_id)
    settings = {"context": CONTEXT, "kv": recipe.kv, "threads": None}
    how: dict[str, Any] = {
        "settings": settings,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW_TOKENS,
        "repeats": REPEATS,
    }
    figures = finish(
        "packager.measure.benchmark:measure",
        artifact.parent / "run.log",
        session=runtime.session,
        artifact=str(artifact),
        **how,
    ).value
    return {field: figures[field] for field in SEEN}


def one_shape(
    name: str, recipes: Sequence[str], rounds: int, scratch: Path, kept: bool
) -> tuple[list[Any], dict[str, list[Any]]]:
    """The probes, and the measurements by recipe, one per round, each with the probes `around`
    it."""
    artifacts, _ = built(name, recipes, scratch)
    probes: list[dict[str, Any]] = []
    runs: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in artifacts}
    for number in range(1, rounds + 1):
        probes.append(probed())
        print(f"{name} round {number}: {_rates(probes[-1])}", flush=True)
        for recipe in artifacts:
            figures = measured(recipe, artifacts[recipe])
            probes.append(probed())
            runs[recipe].append({**figures, "around": probes[-2:]})
            print(f"    {recipe}: {_figures(figures)}; {_rates(probes[-1])}", flush=True)
    if not kept:
        shutil.rmtree(scratch / name, ignore_errors=True)
    return probes, runs


def row(name: str, recipe_id: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Predicted against measured for one artifact, errors in percent above what was measured."""
    predictions = [predicted(name, recipe_id, one["around"]) for one in runs]
    busy = any(
        (one["other_cpu_cores"] or 0.0) > BUSY_CORES
        or any(probe["noisy"] for probe in one["around"])
        for one in runs
    )
    result: dict[str, Any] = {"shape": name, "recipe": recipe_id, "busy": busy, "runs": runs}
    for figure, bar in BARS_PERCENT.items():
        pairs = [
            (getattr(forecast, figure), one[figure])
            for forecast, one in zip(predictions, runs, strict=True)
        ]
        errors = sorted(100 * (said / seen - 1) for said, seen in pairs)
        said, seen = (round(statistics.median(values), 3) for values in zip(*pairs, strict=True))
        quartiles = [round(errors[len(errors) // 4], 2), round(errors[-1 - len(errors) // 4], 2)]
        error = round(statistics.median(errors), 2)
        result[figure] = {
            "predicted": said,
            "measured": seen,
            "error_percent": error,
            "quartiles_percent": quartiles,
        }
        result[figure]["within"] = abs(error) <= bar
    result["within"] = all(result[figure]["within"] for figure in BARS_PERCENT)
    return result


def predicted(name: str, recipe_id: str, around: list[dict[str, Any]]) -> Forecast:
    """The forecast of one artifact on a machine with the mean rates of the probes."""
    runtime, recipe = found(recipe_id)
    shape = shape_of(name)
    bandwidth, compute, step = (
        statistics.mean(one[rate] for one in around)
        for rate in ("bandwidth", "compute", "operation_s")
    )
    speed = runtime.speed(shape, recipe, " ".join(processor()[1]))
    extra = Extra(token=speed.operations * step)
    return predict(
        shape,
        runtime.decode_bytes(shape, recipe, PROMPT),
        PROMPT,
        bandwidth,
        compute,
        "measured",
        speed,
        extra,
    )


def _rates(seen: dict[str, Any]) -> str:
    text = (
        f"{seen['bandwidth'] / 1e9:.1f} GB/s with {seen['threads']} threads, "
        f"{seen['compute'] / 1e9:.0f} GFLOP/s by {seen['engine']}"
    )
    return f"{text}, noisy: others had {seen['other_load']:.0%}" if seen["noisy"] else text


def _figures(seen: dict[str, Any]) -> str:
    text = f"{seen['decode_tps']:.1f} tok/s, first token after {seen['ttft_ms']:.0f} ms"
    return f"{text}, noisy" if seen["noisy"] else text


def print_table(rows: list[dict[str, Any]]) -> None:
    columns = ["shape", "recipe"]
    for figure in ("decode tok/s", "first token"):
        columns += [f"{figure} predicted", "measured", "error", "quartiles"]
    print(f"\n| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * (len(columns) - 2)}")
    for one in rows:
        decode, first = one["decode_tps"], one["ttft_ms"]
        cells = [
            one["shape"],
            one["recipe"],
            f"{decode['predicted']:.1f}",
            f"{decode['measured']:.1f}",
            *_error(decode),
        ]
        cells += [f"{first['predicted']:.0f} ms", f"{first['measured']:.0f} ms", *_error(first)]
        print(f"| {' | '.join(cells)} |{' others were at work' if one['busy'] else ''}")


def _error(figure: dict[str, Any]) -> list[str]:
    low, high = figure["quartiles_percent"]
    return [f"{figure['error_percent']:+.0f} %", f"{low:+.0f} to {high:+.0f} %"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=list(SHAPES))
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds takes a number from 1 on")
    probes: list[dict[str, Any]] = []
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with scratch_folder(options.scratch) as scratch:
        for name in options.shapes:
            seen, by_recipe = one_shape(
                name, options.recipes, options.rounds, scratch, options.scratch is not None
            )
            probes += seen
            runs |= {(name, recipe): figures for recipe, figures in by_recipe.items()}
    rows = [row(name, recipe, figures) for (name, recipe), figures in runs.items()]
    print_table(rows)
    clean = not any(one["busy"] for one in rows)
    # What could not be built or was left out has passed nothing.
    within = len(rows) == len(options.shapes) * len(options.recipes) and all(
        one["within"] for one in rows
    )
    if not clean:
        print(
            "\nOthers were at work on this machine: these figures say nothing. Run it again when "
            "the machine is idle."
        )
    report = {
        "benchmark": "forecast",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(options.recipes),
        "prompt_tokens": PROMPT,
        "new_tokens": NEW_TOKENS,
        "bars_percent": BARS_PERCENT,
        "probes": probes,
        "rows": rows,
        "clean": clean,
        "passed": within if clean else None,
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
