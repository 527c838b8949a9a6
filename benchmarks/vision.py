"""Pictures beside the engine without qwen-pack, on the same files: time of the image encoder, first
token, most memory resident. Beside a GGUF package that is llama.cpp's own tool, llama-mtmd-cli;
beside one of OpenVINO it is openvino_genai.VLMPipeline as the package's README opens it, by its own
metrics.

    python benchmarks/vision.py --tools FOLDER --packages PACKAGE... [--tokens N...] [--rounds N]
                                [--threads N]

FOLDER holds llama-mtmd-cli; where it does not and a package needs it, the tool is built there from
the source archive of the installed llama-cpp-python, which pip downloads.
Packages are those of `qwen-pack build --use-case vision`; random weights will do. Both sides read
the same PNG and take the same threads, context and limit of image tokens. They take turns, each
first in every other round, each in a process of its own; compared are the ratios of a round's two
figures, which lie next to each other in time, as their median. Memory is the most that the process
had resident; ours holds Python and NumPy besides, so the difference is told in bytes, too.
What `fit` would forecast for this machine stands in a second table beside what ours took: the
machine is probed before and after the rounds of each picture, and the mean of both counts.
Exit code 0 only where all medians lie within five per cent and no other program was at work. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import finish, found, versions
from benchmarks.forecast import probed
from benchmarks.harness_vs_peers import BAR_PERCENT, WAITING, Pair, peer_tool, watched
from packager import catalog
from packager.cores import cores
from packager.device.this_machine import describe_machine
from packager.measure.noise import BUSY_CORES
from packager.measure.pictures import made
from packager.measure.session_settings import settings_of
from packager.package import manifest
from packager.pictures import take
from packager.predict.forecast import Extra, predict
from packager.recipe import Recipe
from packager.runtime import Sees
from targets.machine.isa import processor

TOKENS = (256, 1024)
FORECAST_BARS = {"encode_ms": 25.0, "first_token_ms": 25.0, "peak_bytes": 5.0}
"""Per cent that a forecast may be off: times as in benchmarks/forecast.py, memory as in
benchmarks/footprint.py."""
NEW_TOKENS = 2
QUESTION = "What is in this picture? Say it in one sentence."
FIGURES = ("encode_ms", "first_token_ms", "peak_bytes")
_TIMES = {
    "encode_ms": re.compile(r"(?:slice encoded|batch encoding done) in (\d+) ms"),
    "prompt_ms": re.compile(r"prompt eval time =\s*([\d.]+) ms"),
}


def png(path: Path, pixels_per_token: int, tokens: int) -> Path:
    """A square picture of so many tokens, which neither side resizes."""
    from PIL import Image

    side = round(tokens**0.5) * pixels_per_token
    drawn = made(side, 7)
    Image.frombytes("RGB", (side, side), bytes(drawn["data"])).save(path)
    return path


def runtime_of(package: Path) -> tuple[Sees, Recipe]:
    """The runtime and the recipe of a package."""
    runtime, recipe = found(str(manifest.read(package).contents.recipe.id))
    assert isinstance(runtime, Sees), f"{runtime.name} takes no pictures"
    return runtime, recipe


def is_gguf(package: Path) -> bool:
    """Whether llama.cpp reads the package."""
    return (package / "model/model.gguf").is_file()


def ours(package: Path, picture: Path, threads: int) -> dict[str, Any]:
    """By a session of the package, as `qwen-pack run` opens it: another process decodes the
    file."""
    [pixels] = take([picture], picture.parent, picture.with_suffix(".log"))
    head = "<|im_start|>user\n"
    tail = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    done = finish(
        "benchmarks.vision_jobs:look",
        picture.with_suffix(".log"),
        WAITING,
        session_class=runtime_of(package)[0].vision_session,
        artifact=str(package / "model"),
        settings={**settings_of(manifest.read(package)), "threads": threads},
        picture=pixels.as_dict(),
        texts=[head, tail],
        new_tokens=NEW_TOKENS,
        # The pipeline of OpenVINO opens the encoder with the model.
        encoder=is_gguf(package),
    )
    return {**done.value, "peak_bytes": done.peak_bytes}


def by_genai(package: Path, picture: Path, threads: int) -> dict[str, Any]:
    """By the pipeline alone, in a process of its own."""
    settings = settings_of(manifest.read(package))
    done = finish(
        "benchmarks.vision_jobs:ask_pipeline",
        picture.with_suffix(".log"),
        artifact=str(package / "model"),
        settings={**settings, "threads": threads},
        picture=str(picture),
        question=QUESTION,
        new_tokens=NEW_TOKENS,
    )
    return {**done.value, "peak_bytes": done.peak_bytes}


def by_llama_mtmd(tools: Path, package: Path, picture: Path, threads: int) -> dict[str, Any]:
    """By the tool, with the flags of the package's README."""
    settings = settings_of(manifest.read(package))
    model = package / "model"
    most = settings.get("image_max_tokens")
    order = [str(tools / "llama-mtmd-cli"), "--model", str(model / "model.gguf")]
    order += ["--mmproj", str(model / "mmproj.gguf"), "--no-warmup", "--flash-attn", "on"]
    order += ["--load-mode", "none", "--ctx-size", str(settings["context"])]
    order += ["--cache-type-k", str(settings["kv"]), "--cache-type-v", str(settings["kv"])]
    order += ["--batch-size", "512", "--ubatch-size", "512", "--threads", str(threads)]
    order += ["--image-max-tokens", str(most)] if most else []
    order += ["--image", str(picture), "--prompt", QUESTION, "--temp", "0"]
    order += ["--predict", str(NEW_TOKENS), "--verbose", "--perf"]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            order, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **WAITING}
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if child.returncode:
        raise SystemExit(f"llama-mtmd-cli failed:\n{text[-2000:]}")
    times = {
        name: sum(float(number) for number in pattern.findall(text))
        for name, pattern in _TIMES.items()
    }
    # The engine's clock of the prompt starts with the text before the picture and stops where it
    # synchronizes, which is after the picture was encoded and read: encoding is in it.
    return {
        "encode_ms": times["encode_ms"],
        "first_token_ms": times["prompt_ms"],
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def beside(
    tools: Path, package: Path, picture: Path, threads: int, rounds: int
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """One pair per round, and a row per figure."""
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: ours(package, picture, threads),
        "peer": lambda: (
            by_llama_mtmd(tools, package, picture, threads)
            if is_gguf(package)
            else by_genai(package, picture, threads)
        ),
    }
    pairs: list[Pair] = []
    for number in range(rounds):
        order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
        pairs.append({who: watched(ways[who]) for who in order})
        print(f"round {number + 1} {picture.stem}: {json.dumps(pairs[-1])}", flush=True)
    rows = []
    for figure in FIGURES:
        mine, theirs = (
            statistics.median(pair[who][figure] for pair in pairs) for who in ("ours", "peer")
        )
        ratio = statistics.median(pair["ours"][figure] / pair["peer"][figure] for pair in pairs)
        rows.append(
            {
                "figure": figure,
                "ours": mine,
                "peer": theirs,
                "difference_percent": 100 * (ratio - 1),
            }
        )
    return pairs, rows


def forecasts(
    package: Path, tokens: int, prompt: int, around: list[dict[str, Any]]
) -> dict[str, float]:
    """What `fit` says of a picture of so many tokens in a prompt of `prompt`, for a machine with
    the mean rates of these probes."""
    contents = manifest.read(package).contents
    runtime, recipe = found(str(contents.recipe.id))
    variant = catalog.find(str(contents.variant.repo_id))
    assert variant.shape is not None and variant.tower is not None
    shape = variant.shape.seeing(variant.tower, tokens)
    bandwidth, compute, step = (
        statistics.mean(one[rate] for one in around)
        for rate in ("bandwidth", "compute", "operation_s")
    )
    speed = runtime.speed(shape, recipe, " ".join(processor()[1]))
    read = runtime.decode_bytes(shape, recipe, prompt)
    extra = Extra(token=speed.operations * step, batch=speed.prompt_operations * step)
    forecast = predict(shape, read, prompt, bandwidth, compute, "measured", speed, extra)
    assert forecast.encode is not None
    return {
        "encode_ms": forecast.encode.value,
        "first_token_ms": forecast.ttft_ms,
        "peak_bytes": runtime.footprint(shape, recipe, contents.context or 0).peak,
    }


def foretold(forecast: dict[str, float], pairs: list[Pair]) -> list[dict[str, Any]]:
    """A row per figure: what was forecast beside the median of what ours took."""
    rows = []
    for figure, bar in FORECAST_BARS.items():
        measured = statistics.median(pair["ours"][figure] for pair in pairs)
        error = 100 * (forecast[figure] / measured - 1)
        row = {"figure": figure, "forecast": forecast[figure], "measured": measured}
        rows.append({**row, "error_percent": error, "within": abs(error) <= bar})
    return rows


def print_foretold(rows: list[dict[str, Any]]) -> None:
    """The second table."""
    print("\n| package | image tokens | figure | forecast | measured | error |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['package']} | {row['image_tokens']} | {row['figure']} | "
            f"{row['forecast']:,.0f} | {row['measured']:,.0f} | {row['error_percent']:+.1f} % |"
        )


def main() -> int:
    """Take all figures and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--packages", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores().computing)
    options = parser.parse_args()
    tool = options.tools / "llama-mtmd-cli"
    if any(map(is_gguf, options.packages)) and not tool.exists():
        options.tools.mkdir(parents=True, exist_ok=True)
        options.tools = peer_tool(options.tools.resolve(), "llama-mtmd-cli").parent
    rows: list[dict[str, Any]] = []
    pairs: list[Pair] = []
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="qwen-pack-vision-") as folder:
        for package in options.packages:
            seen = manifest.read(package).contents.vision
            assert seen is not None and seen.pixels_per_token, f"{package} takes no pictures"
            for tokens in options.tokens:
                name = f"{package.name}-{tokens}.png"
                picture = png(Path(folder) / name, seen.pixels_per_token, tokens)
                probes = [probed()]
                taken, compared = beside(
                    options.tools, package, picture, options.threads, options.rounds
                )
                probes.append(probed())
                pairs += taken
                named = {"package": package.name, "image_tokens": tokens}
                rows += [{**named, **row} for row in compared]
                prompt = taken[0]["ours"]["prompt_tokens"]
                forecast = forecasts(package, tokens, prompt, probes)
                told += [{**named, **row} for row in foretold(forecast, taken)]
    clean = all(
        (seen["other_cpu_cores"] or 0.0) <= BUSY_CORES for pair in pairs for seen in pair.values()
    )
    print("\n| package | image tokens | figure | ours | engine alone | difference |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['package']} | {row['image_tokens']} | {row['figure']} | {row['ours']:,.0f} | "
            f"{row['peer']:,.0f} | {row['difference_percent']:+.1f} % |"
        )
    print_foretold(told)
    if not clean:
        print("\nOthers were at work on this machine: its times say nothing, memory does.")
    within = all(abs(row["difference_percent"]) <= BAR_PERCENT for row in rows)
    report = {
        "benchmark": "vision",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(runtime_of(package)[1].id for package in options.packages),
        "threads": options.threads,
        "bar_percent": BAR_PERCENT,
        "rows": rows,
        "forecasts": told,
        "forecast_bars_percent": FORECAST_BARS,
        "clean": clean,
        "passed": within if clean else None,
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
