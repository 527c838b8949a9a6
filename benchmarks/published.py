"""Forecasts beside speeds that others measured and published, by class of device and of model.

    python benchmarks/published.py [--use fit|check] [--rows]

The rows are those of targets/published.toml; nothing is measured here. An error is the forecast
over what was published, in percent above it. Each class says how many of its rows lie inside the
stated range; a class with fewer than five rows says so and judges nothing. Exit code 0 only where
every class with enough rows has a median error within 15 % and 80 % of its rows in the range. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager.device.target import Target
from packager.predict.forecast import NO_EXTRA, Forecast, predict_on
from packager.predict.memory import kv_cache_bytes
from packager.predict.offload import Offloads, host_seconds
from packager.predict.sequences import ALONE, Sequences
from packager.recipe import split_id
from packager.shape import Shape
from targets import published, registry

BAR_PERCENT = 15.0
BAR_INSIDE = 0.8
FEW = 5
_UNITS = {
    "laptop": "cpu",
    "mini-pc": "cpu",
    "server": "cpu",
    "single-board": "board",
    "riscv": "board",
    "jetson": "board",
}


@dataclass(frozen=True)
class Pair:
    """One published figure and its forecast."""

    device: str
    model: str
    recipe: str
    figure: str
    device_class: str
    model_class: str
    use: str
    published: float
    forecast: float
    low: float
    high: float

    @property
    def error_percent(self) -> float:
        """Of the forecast above what was published."""
        return 100 * (self.forecast / self.published - 1)

    @property
    def inside(self) -> bool:
        """Whether what was published lies in the stated range."""
        return self.low <= self.published <= self.high


def device_class(target: Target) -> str:
    """gpu, mac, phone, board or cpu: what runs the model there."""
    if target.device.runs_on == "gpu" and "Apple" in target.device.gpu and target.kind != "phone":
        return "mac"
    if target.device.runs_on == "gpu" and target.kind in ("laptop", "mini-pc", "server"):
        return "gpu"
    return _UNITS.get(target.kind, target.kind)


def model_class(shape: Shape) -> str:
    """dense, mixture, or hybrid (Gated DeltaNet without experts)."""
    if shape.experts is not None:
        return "mixture"
    return "hybrid" if shape.hybrid is not None else "dense"


def forecast(row: published.Row, length: int) -> Forecast:
    """What `fit` would say for a prompt of that length, which the answer attends to."""
    runtimes = {runtime.prefix: runtime for runtime in registry.runtimes()}
    prefix, weights, kv = split_id(row.recipe)
    runtime, device = runtimes[prefix], registry.target(row.device).device
    recipe, shape = runtime.recipe(weights, kv), row.shape
    speed = runtime.speed(shape, recipe, device.computes_with)
    extra, sequences, confidence = NO_EXTRA, ALONE, device.confidence
    if device.gpus > 1 and isinstance(runtime, Offloads):
        split = runtime.split(shape, recipe, length, length, 2**31 - 1, gpus=device.gpus)
        extra = host_seconds(split, device)
    if row.parallel > 1:
        sequences = Sequences(row.parallel, kv_cache_bytes(shape, length, recipe.kv_bits))
        confidence = "estimated"
    read = runtime.decode_bytes(shape, recipe, length)
    return predict_on(shape, read, length, device, speed, extra, confidence, sequences)


def pairs(rows: Sequence[published.Row]) -> list[Pair]:
    """Every published figure beside its forecast."""
    found = []
    for row in rows:
        target, shape = registry.target(row.device), row.shape
        where = (device_class(target), model_class(shape), row.use)
        if row.decode is not None:
            said = forecast(row, row.filled)
            figures = (row.decode, said.decode_tps, said.low, said.high)
            # Of several at once the forecast is an estimate with a wide range: a class of its own.
            figure = "decode" if row.parallel == 1 else "decode at once"
            found.append(Pair(row.device, row.model, row.recipe, figure, *where, *figures))
        if row.prefill is not None:
            said = forecast(row, row.prompt)
            figures = (row.prefill, said.prefill_tps, said.prefill_low, said.prefill_high)
            found.append(Pair(row.device, row.model, row.recipe, "prefill", *where, *figures))
    return found


def classes(found: Sequence[Pair]) -> list[dict[str, object]]:
    """Per figure, device and model: the number of rows, the errors' median and tenths, the share
    inside the range."""
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in found:
        groups.setdefault((pair.figure, pair.device_class, pair.model_class), []).append(pair)
    result: list[dict[str, object]] = []
    for (figure, device, model), members in sorted(groups.items()):
        errors = sorted(pair.error_percent for pair in members)
        median = statistics.median(errors)
        inside = sum(pair.inside for pair in members) / len(members)
        enough = len(members) >= FEW
        result.append(
            {
                "figure": figure,
                "device_class": device,
                "model_class": model,
                "rows": len(members),
                "p10_percent": round(errors[len(errors) // 10], 1),
                "median_percent": round(median, 1),
                "p90_percent": round(errors[-1 - len(errors) // 10], 1),
                "inside": round(inside, 2),
                "enough": enough,
                "within": abs(median) <= BAR_PERCENT and inside >= BAR_INSIDE if enough else None,
            }
        )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--use",
        choices=("fit", "check"),
        help="only the rows that were fitted to, or only the others",
    )
    parser.add_argument("--rows", action="store_true", help="every row as well")
    options = parser.parse_args()
    rows = [row for row in published.rows() if options.use in (None, row.use)]
    found = pairs(rows)
    if options.rows:
        print("| device | model | recipe | figure | use | published | forecast | range | error |")
        print("| --- | --- | --- | --- | --- | ---: | ---: | --- | ---: |")
        for pair in found:
            mark = "" if pair.inside else " outside"
            numbers = (
                f"{pair.published:.4g} | {pair.forecast:.4g} | {pair.low:.4g} to "
                f"{pair.high:.4g}{mark}"
            )
            name = f"{pair.device} | {pair.model} | {pair.recipe} | {pair.figure} | {pair.use}"
            print(f"| {name} | {numbers} | {pair.error_percent:+.0f} % |")
        print()
    table = classes(found)
    print("| figure | device | model | rows | P10 / median / P90 | in the range |")
    print("| --- | --- | --- | ---: | --- | ---: |")
    for one in table:
        few = "" if one["enough"] else " (too few rows to judge)"
        tenths = (
            f"{one['p10_percent']:+.0f} / {one['median_percent']:+.0f} / "
            f"{one['p90_percent']:+.0f} %"
        )
        share = f"{one['inside']:.0%}{few}"
        print(
            f"| {one['figure']} | {one['device_class']} | {one['model_class']} | {one['rows']} | "
            f"{tenths} | {share} |"
        )
    judged = [one["within"] for one in table if one["enough"]]
    report = {
        "benchmark": "published",
        "bar_percent": BAR_PERCENT,
        "bar_inside": BAR_INSIDE,
        "use": options.use,
        "figures": len(found),
        "inside": round(sum(pair.inside for pair in found) / max(1, len(found)), 3),
        "classes": table,
        "rows": [
            {**asdict(pair), "error_percent": round(pair.error_percent, 1), "inside": pair.inside}
            for pair in found
        ],
        "passed": all(judged),
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
