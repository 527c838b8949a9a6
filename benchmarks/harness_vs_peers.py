"""Our figures beside the engines' own instruments on the same files: llama.cpp's llama-bench, and OpenVINO GenAI's perf_metrics.

    python benchmarks/harness_vs_peers.py --scratch FOLDER [--build-only] [--model NAME] [--rounds N] [--threads N]

llama-bench is built in the scratch folder from the source archive of the installed llama-cpp-python, which pip downloads (several
minutes, once); artifacts have random weights in the true shape and are kept there too, so `--build-only` first leaves an idle
machine to the measurement. Both take the same file, threads, cache type, prompt and answer, and take turns, each first in every
other round. Compared are medians over the rounds: prefill of the prompt, decoding behind it, and for llama.cpp decoding from an
empty context. Exit code 0 only where all agree within five per cent on an idle machine. The last line is one JSON object.
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
from packager.gauges.load import Mark
from packager.machine import describe_machine, usable_cores
from packager.noise import BUSY_CORES
from targets.llama_cpp.library import SPIN

RECIPES = ("gguf:Q4_K_M", "openvino:int4_sym_g128")
PROMPT, NEW_TOKENS, CONTEXT, REPEATS = 512, 64, 1024, 5
BAR_PERCENT = 5.0
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPIN}
"""How our llama.cpp waits for its threads; its peer gets the same."""


def llama_bench(scratch: Path) -> Path:
    """llama.cpp's own benchmark, built from the archive of the version that is installed here."""
    program = scratch / "peer-build" / "bin" / "llama-bench"
    if not program.exists():
        off = [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "SERVER", "APP")]
        place = ["-S", str(source(scratch)), "-B", str(scratch / "peer-build")]
        subprocess.run(["cmake", *place, "-DCMAKE_BUILD_TYPE=Release", *off], check=True, stdout=subprocess.DEVNULL)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", str(scratch / "peer-build"), "--target", "llama-bench", "-j", jobs], check=True)
    return program


def ours(recipe_id: str, artifact: Path, threads: int) -> dict[str, Any]:
    runtime, recipe = found(recipe_id)
    settings = {"context": CONTEXT, "kv": recipe.kv, "threads": threads}
    how: dict[str, Any] = {"settings": settings, "prompt_tokens": PROMPT, "new_tokens": NEW_TOKENS, "repeats": REPEATS, "thorough": True}
    log = artifact.parent / "run.log"
    figures = finish("packager.smoke:measure", log, session=runtime.session, artifact=str(artifact), **how).value
    return {name: figures[name] for name in ("prefill_tps", "decode_tps", "decode_empty_tps", "noisy", "noisy_because")}


def watched(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The peer's figures, noisy where others had more of the cores than ours are allowed to."""
    mark, before = Mark.now(), os.times()
    figures = measure()
    after, now = os.times(), Mark.now()
    # What its process took counts as ours once that has ended.
    own = after.children_user + after.children_system - before.children_user - before.children_system
    others = None if mark.others is None or now.others is None else (now.others - mark.others - own) / (now.at - mark.at)
    return {**figures, "other_cpu_cores": others, "noisy": (others or 0.0) > BUSY_CORES}


def by_llama_bench(program: Path, artifact: Path, kv: str, threads: int) -> dict[str, Any]:
    model = next(artifact.glob("*.gguf"))

    def rates(prompt: int, depth: int) -> dict[str, float]:
        same = ["-t", str(threads), "-ctk", kv, "-ctv", kv, "-fa", "1", "-b", "512", "-ub", "512", "-r", str(REPEATS), "-o", "json"]
        order = [str(program), "-m", str(model), "-p", str(prompt), "-n", str(NEW_TOKENS), "-d", str(depth), *same]
        done = subprocess.run(order, check=True, capture_output=True, text=True, env={**os.environ, **WAITING})
        rows = json.loads(done.stdout)
        return {"prefill" if row["n_prompt"] else "decode": statistics.median(row["samples_ts"]) for row in rows}

    empty, behind = rates(PROMPT, 0), rates(0, PROMPT)
    return {"prefill_tps": empty["prefill"], "decode_empty_tps": empty["decode"], "decode_tps": behind["decode"]}


def by_openvino(artifact: Path, kv: str, threads: int) -> dict[str, Any]:
    how = {"kv": kv, "threads": threads, "context": CONTEXT, "prompt_tokens": PROMPT, "new_tokens": NEW_TOKENS, "repeats": REPEATS}
    return finish("benchmarks.jobs:openvino_metrics", artifact.parent / "peer.log", artifact=str(artifact), **how).value


def compare(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per figure that both tell: medians over the rounds, and how far ours lies above the peer's."""
    rows = []
    for figure in ("prefill_tps", "decode_tps", "decode_empty_tps"):
        if figure in runs["peer"][0]:
            mine, theirs = (statistics.median(run[figure] for run in runs[who]) for who in ("ours", "peer"))
            rows.append({"figure": figure, "ours": mine, "peer": theirs, "difference_percent": 100 * (mine / theirs - 1)})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    program = llama_bench(options.scratch.resolve()) if any(recipe.startswith("gguf") for recipe in options.recipes) else None
    artifacts, failed = built(options.model, options.recipes, options.scratch / "artifacts")
    if failed or options.build_only:
        print(json.dumps({"built": sorted(artifacts), "failed": failed}))
        return 1 if failed else 0
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {recipe: {"ours": [], "peer": []} for recipe in artifacts}
    for number in range(options.rounds):
        for recipe, artifact in artifacts.items():
            kv = found(recipe)[1].kv

            def peer(recipe: str = recipe, artifact: Path = artifact, kv: str = kv) -> dict[str, Any]:
                if recipe.startswith("gguf"):
                    assert program is not None
                    return by_llama_bench(program, artifact, kv, options.threads)
                return by_openvino(artifact, kv, options.threads)

            for who in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                seen = ours(recipe, artifact, options.threads) if who == "ours" else watched(peer)
                runs[recipe][who].append(seen)
                print(f"round {number + 1} {recipe} {who}: {json.dumps(seen)}", flush=True)
    rows = [{"recipe": recipe, **row} for recipe, both in runs.items() for row in compare(both)]
    clean = not any(run["noisy"] for both in runs.values() for seen in both.values() for run in seen)
    print("\n| recipe | figure | ours | the engine's own | difference |\n| --- | --- | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['recipe']} | {row['figure']} | {row['ours']:.1f} | {row['peer']:.1f} | {row['difference_percent']:+.1f} % |")
    if not clean:
        print("\nOthers were at work on this machine: these figures say nothing. Run it again when the machine is idle.")
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
