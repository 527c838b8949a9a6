"""Decoding of each runtime, tuned, beside its peer as it comes, and how near both come to what the
memory of this machine gives. Random weights in the true shape; the last line is one JSON object.

    python benchmarks/decode_roof.py --scratch FOLDER [--models NAME ...] [--runtimes NAME ...]
                                     [--rounds N] [--build] [--again] [--tiny] [--defaults]

Peers, of the same checkpoint: llama-bench with its own settings over Q4_K_M, built in the scratch
folder from the source archive of the installed llama-cpp-python; optimum's int4 export with its own
settings through openvino_genai.LLMPipeline; the default int4 output of ONNX Runtime GenAI's model
builder through its own loop. Ours is the fastest of a runtime's `CANDIDATES` in one short round
each, among those that differ from the unquantized model by no more than the peer does: the mean
divergence over the same tokens, with the F16 GGUF as the unquantized model. Ours and the peer take
turns, each first in every other round, with the memory's rate measured before every round.

Every shape and runtime is one entry of decode-roof.json in the scratch folder, written as soon as
it is finished: an entry that is there is not measured again, so that the work can be cut into
calls. `--build` makes the artifacts and stops. `--defaults` measures nothing and prints the rows
of targets/tuned.toml that follow from the entries so far. `--tiny` takes the small model of the
tests, to see that the script works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import ROOT, finish, found, scratch_folder, shape_of, versions
from benchmarks.harness_vs_peers import peer_tool, watched
from benchmarks.runtimes import memory_rate
from packager import catalog
from packager.checkpoint import Checkpoint
from packager.device.this_machine import describe_machine
from packager.files import write_json
from packager.shape import Shape
from targets.machine.isa import processor

MODELS = ("Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2.5-1.5B-Instruct", "Qwen3-1.7B")
CANDIDATES = {
    "gguf": ("gguf:Q4_K_M", "gguf:Q4_0", "gguf:Q4_K_M/kv_q8_0", "gguf:Q4_0/kv_q8_0"),
    "openvino": ("openvino:int4_sym_g128", "openvino:int4_asym_g64"),
    "onnx": ("onnx:int4_sym_b128", "onnx:int4_asym_b32", "onnx:int4_sym_b32"),
}
PEERS = {
    "gguf": "llama-bench, Q4_K_M",
    "openvino": "optimum, int4, openvino_genai.LLMPipeline",
    "onnx": "ONNX Runtime GenAI's builder, int4",
}
UNQUANTIZED = "gguf:F16"
PROMPT, NEW_TOKENS, CONTEXT = 256, 64, 1024
TINY = "tiny-qwen3"
CLASSES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "dotprod", "i8mm", "sve")
"""Instruction sets that tell one class of processors from another for products of integers."""
COMPARED = 96
"""Tokens over which the divergence is taken."""
ALIKE = 1.05
"""Times the peer's divergence up to which ours counts as equal: it is an estimate over few
tokens."""


def checkpoint_of(name: str, folder: Path, tiny: bool) -> Path:
    """The checkpoint that everything is made of; written where it is not there."""
    if tiny:
        return ROOT / "tests" / "models" / TINY
    place = folder / "checkpoint"
    if not place.is_dir():
        variant = catalog.find(name)
        shape = asdict(shape_of(name))
        job = "packager.sources.dummy:fetch"
        finish(job, folder / "log", repo_id=variant.repo_id, shape=shape, out=str(place))
    return place


def made(recipe_id: str, checkpoint: Callable[[], Path], folder: Path) -> Path:
    """Our artifact; recipes that differ in the cache share it."""
    place = folder / recipe_id.partition("/")[0].replace(":", "-")
    if not place.is_dir():
        runtime, recipe = found(recipe_id)
        half = folder / f".{place.name}"
        shutil.rmtree(half, ignore_errors=True)
        order: dict[str, Any] = {
            "checkpoint": str(checkpoint()),
            "recipe": asdict(recipe),
            "out": str(half),
        }
        finish(runtime.build_job, folder / "log", workload={"context": CONTEXT}, **order)
        half.replace(place)
        print(f"{folder.name} {place.name}: built", flush=True)
    return place


def peer_artifact(runtime: str, checkpoint: Callable[[], Path], folder: Path) -> Path:
    """What the peer's own tool makes of the checkpoint with its own settings."""
    if runtime == "gguf":
        return made("gguf:Q4_K_M", checkpoint, folder)
    place = folder / f"peer-{runtime}"
    if place.is_dir():
        return place
    half = folder / f".{place.name}"
    shutil.rmtree(half, ignore_errors=True)
    source = str(checkpoint())
    export = "optimum.commands.optimum_cli export openvino --task text-generation-with-past"
    build = "onnxruntime_genai.models.builder -m peer -p int4 -e cpu"
    cache = str(folder / "peer-cache")
    order = {
        "openvino": [*export.split(), "--weight-format", "int4", "--model", source, str(half)],
        "onnx": [*build.split(), "-i", source, "-o", str(half), "-c", cache],
    }[runtime]
    order = ["-m", *order]
    with (folder / f"peer-{runtime}.log").open("wb") as log:
        subprocess.run([sys.executable, *order], check=True, stdout=log, stderr=log)
    shutil.rmtree(folder / "peer-cache", ignore_errors=True)
    half.replace(place)
    print(f"{folder.name} {place.name}: built", flush=True)
    return place


def our_rates(recipe_id: str, artifact: Path, log: Path) -> dict[str, Any]:
    """Our harness, as a build runs it: threads by a search."""
    runtime, recipe = found(recipe_id)
    figures = finish(
        "packager.measure.benchmark:measure",
        log,
        session=runtime.session,
        artifact=str(artifact),
        settings={"context": CONTEXT, "kv": recipe.kv, "threads": None},
        prompt_tokens=PROMPT,
        new_tokens=NEW_TOKENS,
        repeats=2,
    ).value
    names = ("decode_tps", "prefill_tps", "threads", "peak_memory_bytes")
    return {name: figures.get(name) for name in names}


def peer_rates(runtime: str, artifact: Path, scratch: Path, log: Path) -> dict[str, Any]:
    """The peer's own instrument with its own settings."""
    if runtime == "gguf":
        model = next(artifact.glob("*.gguf"))
        order = [
            str(peer_tool(scratch, "llama-bench")),
            "-m",
            str(model),
            "-p",
            "0",
            "-n",
            str(NEW_TOKENS),
        ]
        order += ["-d", str(PROMPT), "-r", "2", "-o", "json"]
        done = subprocess.run(order, check=True, capture_output=True, text=True)
        row = next(row for row in json.loads(done.stdout) if row["n_gen"])
        return {"decode_tps": statistics.median(row["samples_ts"]), "threads": row["n_threads"]}
    job = {"openvino": "openvino_as_it_comes", "onnx": "onnx_as_it_comes"}[runtime]
    how: dict[str, Any] = {"prompt_tokens": PROMPT, "new_tokens": NEW_TOKENS, "repeats": 2}
    value: Any = finish(f"benchmarks.jobs:{job}", log, artifact=str(artifact), **how).value
    return dict(value)


def divergence(recipe_id: str, artifact: Path, truth: Path, log: Path) -> float:
    """Mean nats by which the artifact differs from the F16 GGUF over the same tokens."""
    runtime, recipe = found(recipe_id)
    value: Any = finish(
        "benchmarks.jobs:divergence_from",
        log,
        session=runtime.session,
        artifact=str(artifact),
        kv=recipe.kv,
        truth=str(truth),
        context=CONTEXT,
        tokens=COMPARED,
    ).value
    return float(value["mean"])


def tuned(
    runtime: str, artifacts: dict[str, Path], limit: float, truth: Path, log: Path
) -> tuple[str, list[dict[str, Any]]]:
    """The recipe that decodes fastest among those that lose no more than the peer, and every one's
    figures."""
    rows: list[dict[str, Any]] = []
    lost: dict[Path, float] = {}
    for recipe_id in CANDIDATES[runtime]:
        place = artifacts[recipe_id]
        kept = found(recipe_id)[1].kv
        key = place / kept
        if key not in lost:
            lost[key] = divergence(recipe_id, place, truth, log)
        rows.append(
            {"recipe": recipe_id, "divergence": lost[key], **our_rates(recipe_id, place, log)}
        )
        print(
            f"  {recipe_id}: {rows[-1]['decode_tps']:.1f} tok/s, {lost[key]:.4f} nats", flush=True
        )
    fair = [row for row in rows if row["divergence"] <= ALIKE * limit]
    best = max(fair or rows, key=lambda row: (bool(fair), row["decode_tps"]))
    return str(best["recipe"]), rows


def shares(shape: Shape, recipe_id: str) -> dict[str, float]:
    """Where the bytes of a token are, as shares: the output matrix, the cache, everything else."""
    runtime, recipe = found(recipe_id)
    filled = PROMPT + NEW_TOKENS // 2
    whole = runtime.decode_bytes(shape, recipe, filled)
    weights = runtime.decode_bytes(shape, recipe, 0)
    output = shape.vocab * shape.hidden / shape.parameters()
    cache = (whole - weights) / whole
    return {"cache": cache, "output": (1 - cache) * output, "layers": (1 - cache) * (1 - output)}


def one(
    name: str, runtime: str, options: argparse.Namespace, scratch: Path
) -> dict[str, Any] | None:
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"

    def checkpoint() -> Path:
        return checkpoint_of(name, folder, options.tiny)

    artifacts = {recipe: made(recipe, checkpoint, folder) for recipe in CANDIDATES[runtime]}
    truth = made(UNQUANTIZED, checkpoint, folder)
    peer = peer_artifact(runtime, checkpoint, folder)
    if runtime == "gguf":
        peer_tool(scratch, "llama-bench")
    if options.build:
        return None
    shape = Checkpoint.open(checkpoint()).shape if options.tiny else shape_of(name)
    by_default = {"gguf": "gguf:Q4_K_M"}.get(runtime, CANDIDATES[runtime][0])
    limit = divergence(by_default, peer, truth, log)
    recipe, candidates = tuned(runtime, artifacts, limit, truth, log)
    read = found(recipe)[0].decode_bytes(shape, found(recipe)[1], PROMPT + NEW_TOKENS // 2)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: our_rates(recipe, artifacts[recipe], log),
        "peer": lambda: peer_rates(runtime, peer, scratch, log),
    }
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        rate, others = memory_rate(log)
        order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
        seen = {who: watched(ways[who]) for who in order}
        rounds.append({**seen, "memory_rate": rate, "other_load": others, "roof_tps": rate / read})
        ratio = seen["ours"]["decode_tps"] / seen["peer"]["decode_tps"]
        print(f"{name} {recipe}, round {number + 1}: {ratio:.2f} of the peer", flush=True)
    ratios = [row["ours"]["decode_tps"] / row["peer"]["decode_tps"] for row in rounds]
    return {
        "model": name,
        "runtime": runtime,
        "peer": PEERS[runtime],
        "recipe": recipe,
        "candidates": candidates,
        "peer_divergence": limit,
        "divergence": next(row["divergence"] for row in candidates if row["recipe"] == recipe),
        "ratio": statistics.median(ratios),
        "roof_share": statistics.median(
            row["ours"]["decode_tps"] / row["roof_tps"] for row in rounds
        ),
        "peer_tps": statistics.median(row["peer"]["decode_tps"] for row in rounds),
        "bytes_per_token": read,
        "shares": shares(shape, recipe),
        "rounds": rounds,
    }


def table(rows: list[dict[str, Any]]) -> None:
    print("\n| shape | ours | peer | of the peer | divergence, peer's | of the roof |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        lost = f"{row['divergence']:.4f}, {row['peer_divergence']:.4f}"
        figures = f"{row['ratio']:.2f} | {lost} | {row['roof_share']:.0%}"
        print(f"| {row['model']} | {row['recipe']} | {row['peer']} | {figures} |")


def defaults(rows: list[dict[str, Any]]) -> str:
    """Rows of targets/tuned.toml: of each runtime the recipe that decodes fastest in most shapes,
    with the figures of the first shape in which it does."""
    _, isa = processor()
    kinds = [isa[0], *(name for name in CLASSES if name in isa)]
    text = []
    for runtime in PEERS:
        own = [row for row in rows if row["runtime"] == runtime and row["model"] != TINY]
        if not own:
            continue
        chosen = Counter(row["recipe"] for row in own).most_common(1)[0][0]
        row = next(row for row in own if row["recipe"] == chosen)
        rates = {one["recipe"]: round(one["decode_tps"], 1) for one in row["candidates"]}
        others = ", ".join(
            f"{json.dumps(name)} = {rate}" for name, rate in rates.items() if name != chosen
        )
        lost = row["divergence"]
        text.append(
            f"[[default]]\nruntime = {json.dumps(found(chosen)[0].name)}\n"
            f"isa = {json.dumps(kinds)}\nrecipe = {json.dumps(chosen)}\n"
            f"model = {json.dumps(row['model'])}\ndecode_tps = {rates[chosen]}\n"
            f"beside = {{ {others} }}\ndivergence = {lost:.4f}\n"
            'source = "docs/measurements/runtimes.md"\n'
        )
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--runtimes", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--defaults", action="store_true")
    options = parser.parse_args()
    names = [TINY] if options.tiny else options.models
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with scratch_folder(options.scratch) as scratch:
        file = scratch / "decode-roof.json"
        known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        if options.defaults:
            print(defaults(list(known.values())))
            return 0
        for name in names:
            for runtime in options.runtimes:
                key = f"{name} {runtime}"
                if key in known and not options.again and not options.build:
                    continue
                row = one(name, runtime, options, scratch)
                if row is not None:
                    known[key] = row
                    write_json(file, known)
            shutil.rmtree(scratch / name / "checkpoint", ignore_errors=True)
    rows = list(known.values())
    if rows:
        table(rows)
    ratios = [row["ratio"] for row in rows]
    recipes = [recipe for each in CANDIDATES.values() for recipe in each]
    print(
        json.dumps(
            {
                "rows": rows,
                "least_ratio": min(ratios, default=None),
                "median_ratio": statistics.median(ratios) if ratios else None,
                "complete": len(rows) >= len(MODELS) * len(PEERS),
                "machine": describe_machine(),
                "versions": versions(recipes),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
