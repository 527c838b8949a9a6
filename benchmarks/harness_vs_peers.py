"""Our figures beside the engines' own instruments on the same files: llama.cpp's llama-bench, and
OpenVINO GenAI's perf_metrics.

    python benchmarks/harness_vs_peers.py --scratch FOLDER [--build-only] [--model NAME]
                                          [--recipes ID...] [--rounds N] [--threads N]

llama-bench is built in the scratch folder from the source archive of the installed
llama-cpp-python, which pip downloads (several minutes, once); artifacts have random weights in the
true shape and are kept there too, so `--build-only` first leaves an idle machine to the
measurement. Both take the same file, threads, cache type, prompt and answer, and take turns, each
first in every other round; OpenVINO's are two ways of timing one loaded pipeline. Compared are the
ratios of a round's two figures, which lie next to each other in time, as their median and
quartiles: prefill of the prompt, decoding behind it, and for llama.cpp decoding from an empty
context. Exit code 0 only where all medians lie within five per cent and no other program was at
work. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import built, finish, found, versions
from benchmarks.peer import source
from packager.cores import cores
from packager.device.this_machine import describe_machine
from packager.measure.gauges.load import Mark
from packager.measure.noise import BUSY_CORES
from targets.gguf.library import SPIN

RECIPES = ("gguf:Q4_K_M", "openvino:int4_sym_g128")
PROMPT, NEW_TOKENS, CONTEXT, REPEATS = 512, 64, 1024, 2
BAR_PERCENT = 5.0
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPIN}
"""How our llama.cpp waits for its threads; its peer gets the same."""


def peer_tool(scratch: Path, name: str) -> Path:
    """A tool of llama.cpp's own: from the folder that QWEN_PACK_LLAMA_TOOLS names, else built from
    the archive of the version that is installed here."""
    given = os.environ.get("QWEN_PACK_LLAMA_TOOLS")
    if given and (Path(given) / name).is_file():
        return Path(given) / name
    program = scratch / "peer-build" / "bin" / name
    if not program.exists():
        off = [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "SERVER", "APP")]
        place = ["-S", str(source(scratch)), "-B", str(scratch / "peer-build")]
        subprocess.run(
            ["cmake", *place, "-DCMAKE_BUILD_TYPE=Release", *off],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        jobs = str(os.cpu_count() or 1)
        subprocess.run(
            [
                "cmake",
                "--build",
                str(scratch / "peer-build"),
                "--target",
                name,
                "-j",
                jobs,
            ],
            check=True,
        )
    return program


Pair = dict[str, dict[str, Any]]
"""The figures of `ours` and of the `peer`, taken one behind the other."""


def watched(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured, and the cores that other programs had meanwhile."""
    mark, before = Mark.now(), os.times()
    figures = measure()
    after, now = os.times(), Mark.now()
    # What a child process took counts as ours once that has ended.
    own = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    others = (
        None
        if mark.others is None or now.others is None
        else (now.others - mark.others - own) / (now.at - mark.at)
    )
    return {**figures, "other_cpu_cores": others}


def ours(recipe_id: str, artifact: Path, threads: int) -> dict[str, Any]:
    runtime, recipe = found(recipe_id)
    settings = {"context": CONTEXT, "kv": recipe.kv, "threads": threads}
    # One attempt: the peer repeats nothing either.
    how: dict[str, Any] = {
        "settings": settings,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW_TOKENS,
        "repeats": REPEATS,
        "thorough": True,
    }
    figures = finish(
        "packager.measure.benchmark:measure",
        artifact.parent / "run.log",
        session=runtime.session,
        artifact=str(artifact),
        **how,
    ).value
    return {name: figures[name] for name in ("prefill_tps", "decode_tps", "decode_empty_tps")}


def by_llama_bench(program: Path, artifact: Path, kv: str, threads: int) -> dict[str, Any]:
    model = next(artifact.glob("*.gguf"))

    def rates(prompt: int, depth: int) -> dict[str, float]:
        same = [
            "-t",
            str(threads),
            "-ctk",
            kv,
            "-ctv",
            kv,
            "-fa",
            "1",
            "-b",
            "512",
            "-ub",
            "512",
            "-r",
            str(REPEATS),
            "-o",
            "json",
        ]
        order = [
            str(program),
            "-m",
            str(model),
            "-p",
            str(prompt),
            "-n",
            str(NEW_TOKENS),
            "-d",
            str(depth),
            *same,
        ]
        done = subprocess.run(
            order, check=True, capture_output=True, text=True, env={**os.environ, **WAITING}
        )
        rows = json.loads(done.stdout)
        return {
            "prefill" if row["n_prompt"] else "decode": statistics.median(row["samples_ts"])
            for row in rows
        }

    empty, behind = rates(PROMPT, 0), rates(0, PROMPT)
    return {
        "prefill_tps": empty["prefill"],
        "decode_empty_tps": empty["decode"],
        "decode_tps": behind["decode"],
    }


def beside_llama_bench(
    program: Path, recipe_id: str, artifact: Path, threads: int, rounds: int
) -> list[Pair]:
    """One pair per round, each figure by a process of its own."""
    kv = found(recipe_id)[1].kv
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: ours(recipe_id, artifact, threads),
        "peer": lambda: by_llama_bench(program, artifact, kv, threads),
    }
    pairs = []
    for number in range(rounds):
        order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
        pairs.append({who: watched(ways[who]) for who in order})
        print(f"round {number + 1} {recipe_id}: {json.dumps(pairs[-1])}", flush=True)
    return pairs


def beside_perf_metrics(recipe_id: str, artifact: Path, threads: int, rounds: int) -> list[Pair]:
    """One pair per round, all of one loaded pipeline; several answers take the time of one round of
    the other engine."""
    how: dict[str, Any] = {
        "threads": threads,
        "context": CONTEXT,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW_TOKENS,
        "rounds": 4 * rounds,
    }
    log, kv = artifact.parent / "peer.log", found(recipe_id)[1].kv

    def job() -> dict[str, Any]:
        return finish(
            "benchmarks.jobs:openvino_in_turns", log, artifact=str(artifact), kv=kv, **how
        ).value

    seen = watched(job)
    return [
        {
            who: {**figures, "other_cpu_cores": seen["other_cpu_cores"]}
            for who, figures in pair.items()
        }
        for pair in seen["pairs"]
    ]


def compare(pairs: list[Pair]) -> list[dict[str, Any]]:
    """One row per figure that both tell: medians, and how far ours lies above the peer's in the
    same round (median, quartiles)."""
    rows = []
    for figure in ("prefill_tps", "decode_tps", "decode_empty_tps"):
        if figure in pairs[0]["peer"]:
            mine, theirs = (
                statistics.median(pair[who][figure] for pair in pairs) for who in ("ours", "peer")
            )
            ratios = sorted(
                100 * (pair["ours"][figure] / pair["peer"][figure] - 1) for pair in pairs
            )
            quartiles = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]
            difference = {
                "difference_percent": statistics.median(ratios),
                "quartiles_percent": quartiles,
            }
            rows.append({"figure": figure, "ours": mine, "peer": theirs, **difference})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=cores().computing)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    program = (
        peer_tool(options.scratch.resolve(), "llama-bench")
        if any(recipe.startswith("gguf") for recipe in options.recipes)
        else None
    )
    artifacts, failed = built(options.model, options.recipes, options.scratch / "artifacts")
    if failed or options.build_only:
        print(json.dumps({"built": sorted(artifacts), "failed": failed}))
        return 1 if failed else 0
    runs: dict[str, list[Pair]] = {}
    for recipe, artifact in artifacts.items():
        if recipe.startswith("gguf"):
            assert program is not None
            runs[recipe] = beside_llama_bench(
                program, recipe, artifact, options.threads, options.rounds
            )
        else:
            runs[recipe] = beside_perf_metrics(recipe, artifact, options.threads, options.rounds)
    rows = [{"recipe": recipe, **row} for recipe, pairs in runs.items() for row in compare(pairs)]
    clean = all(
        (seen["other_cpu_cores"] or 0.0) <= BUSY_CORES
        for pairs in runs.values()
        for pair in pairs
        for seen in pair.values()
    )
    print(
        "\n| recipe | figure | ours | the engine's own | difference | quartiles |\n| --- | --- | "
        "---: | ---: | ---: | ---: |"
    )
    for row in rows:
        low, high = row["quartiles_percent"]
        print(
            f"| {row['recipe']} | {row['figure']} | {row['ours']:.1f} | {row['peer']:.1f} | "
            f"{row['difference_percent']:+.1f} % "
            f"| {low:+.1f} to {high:+.1f} % |"
        )
    if not clean:
        print(
            "\nOthers were at work on this machine: these figures say nothing. Run it again when "
            "the machine is idle."
        )
    within = all(abs(row["difference_percent"]) <= BAR_PERCENT for row in rows)
    report = {
        "benchmark": "harness_vs_peers",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(options.recipes),
        "model": options.model,
        "threads": options.threads,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW_TOKENS,
        "bar_percent": BAR_PERCENT,
        "rows": rows,
        "runs": runs,
        "clean": clean,
        "passed": within if clean else None,
    }
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
