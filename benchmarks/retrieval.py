"""Documents per second and memory of embedders beside llama.cpp's own llama-embedding,
optimum-intel with OpenVINO as it comes, and Sentence Transformers on the processor.

    python benchmarks/retrieval.py --scratch FOLDER [--build-only] [--rounds N] [--documents N]
                                   [--tokens N] [--only NAME...] [--layers N]

Everything has the true shape of Qwen3-Embedding-0.6B and random weights, and stays in the scratch
folder (10 GB). It needs the extras openvino, onnx and gguf, cmake with a compiler, and pip: llama-
embedding is built there from the source archive of the installed llama-cpp-python, and Sentence
Transformers is installed there, beside the torch that is here, and nowhere else (a quarter of an
hour, once). `--build-only` first leaves an idle machine to the measurement; `--layers 2` tries
everything on a smaller network, in a folder of its own, which proves nothing about speed.

All embed the same texts, handed over together, in a process of their own, one after the other,
round by round in turn; memory is the most that the process had resident. Ours are compared with the
fastest of the others, and with the memory of Sentence Transformers. Exit code 0 where one of ours
is at least as fast as the fastest of the others within five per cent, each takes at most half of
the memory of Sentence Transformers in float32, and no other program was at work. On the processor
Sentence Transformers takes the checkpoint's bfloat16 when nothing is said, and advises float32:
both stand in the table. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import finish, found, shape_of, versions
from benchmarks.harness_vs_peers import watched
from benchmarks.peer import source
from packager import catalog
from packager.cores import cores
from packager.device.this_machine import describe_machine
from packager.engines import installed
from packager.errors import PackError
from packager.measure.noise import BUSY_CORES
from packager.process import peak_resident_bytes
from packager.units import human_bytes

MODEL = "Qwen/Qwen3-Embedding-0.6B"
RECIPES = ("gguf:Q8_0", "openvino:int8_asym", "openvino:int4_sym_g128", "onnx:int8_sym_b32")
FLOAT32 = "sentence-transformers-float32"
PEERS = ("llama-embedding", "optimum-openvino", "sentence-transformers", FLOAT32)
CONTEXT = 2048
BAR = 0.95
MEMORY_BAR = 0.5
_SEPARATOR = "<#sep#>"
_BESIDE = ("scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals")
"""What Sentence Transformers imports beside torch and transformers, which are here."""


def checkpoint(scratch: Path, layers: int | None = None) -> Path:
    """The checkpoint of random weights, with so many layers where that is said."""
    folder = scratch / "checkpoint"
    if not folder.is_dir():
        half = scratch / ".checkpoint"
        shutil.rmtree(half, ignore_errors=True)
        shape = shape_of(MODEL)
        finish(
            "packager.sources.dummy:fetch",
            scratch / "build.log",
            repo_id=catalog.find(MODEL).repo_id,
            shape=asdict(replace(shape, layers=layers or shape.layers).for_task("embed")),
            out=str(half),
        )
        _for_sentence_transformers(half)
        half.replace(folder)
    return folder


def _for_sentence_transformers(folder: Path) -> None:
    """What Qwen3-Embedding has beside its weights."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    pooling = {
        "word_embedding_dimension": shape_of(MODEL).hidden,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")


def artifact(scratch: Path, recipe_id: str) -> Path:
    """Our artifact of a recipe."""
    folder = scratch / recipe_id.replace(":", "-")
    if not folder.is_dir():
        half = scratch / f".{folder.name}"
        shutil.rmtree(half, ignore_errors=True)
        runtime, recipe = found(recipe_id)
        origin = {"kind": "dummy", "repo_id": MODEL, "revision": None, "license": None}
        finish(
            runtime.build_job,
            scratch / "build.log",
            checkpoint=str(checkpoint(scratch)),
            recipe={**asdict(recipe), "inputs": {"task": "embed", "origin": origin}},
            workload={"context": CONTEXT},
            out=str(half),
        )
        half.replace(folder)
    return folder


def llama_embedding(scratch: Path) -> Path:
    """llama.cpp's own program, built from the archive of the version that is installed here."""
    build = scratch / "peer-embedding"
    program = build / "bin" / "llama-embedding"
    if not program.exists():
        off = [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "SERVER", "APP", "UI")]
        place = ["-S", str(source(scratch)), "-B", str(build), "-DLLAMA_BUILD_EXAMPLES=ON"]
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run(["cmake", *place, "-DCMAKE_BUILD_TYPE=Release", *off], **quiet)
        how = ["--target", "llama-embedding", "-j", str(os.cpu_count() or 1)]
        subprocess.run(["cmake", "--build", str(build), *how], **quiet)
    return program


def peer_packages(scratch: Path) -> Path:
    """A folder with Sentence Transformers, which runs on the torch that is here."""
    folder = scratch / "peer-packages"
    if not folder.is_dir():
        half = scratch / ".peer-packages"
        order = [sys.executable, "-m", "pip", "install", "-q", "--target", str(half), "--no-deps"]
        subprocess.run([*order, "sentence-transformers", *_BESIDE], check=True)
        half.replace(folder)
    return folder


def by_llama_embedding(
    program: Path, model: Path, texts: list[str], threads: int, scratch: Path
) -> dict[str, Any]:
    """Its own time of the prompts where it tells one, else the time of all texts less that of one;
    and the most memory that it had."""
    spoken, whole_s, peak = _embedding_run(program, model, texts, threads, scratch)
    told = re.search(r"prompt eval time\s*=\s*([\d.]+) ms", spoken)
    if told is not None and float(told[1]) > 0:
        seconds = float(told[1]) / 1000
    else:
        _, one_s, _ = _embedding_run(program, model, texts[:1], threads, scratch)
        seconds = (whole_s - one_s) * len(texts) / (len(texts) - 1)
    return {"documents_per_s": len(texts) / seconds, "peak_bytes": peak}


def _embedding_run(
    program: Path, model: Path, texts: list[str], threads: int, scratch: Path
) -> tuple[str, float, int]:
    """What it said, how long it ran in seconds, and the most memory that it had."""
    file = scratch / "texts.txt"
    file.write_text(_SEPARATOR.join(texts), "utf-8")
    order = [str(program), "-m", str(model), "-f", str(file), "--embd-separator", _SEPARATOR]
    # Without a number of sequences it takes one cache for all of them, as ours does.
    order += ["--pooling", "last", "--embd-normalize", "2", "-c", str(CONTEXT)]
    order += ["-t", str(threads), "-tb", str(threads), "-fa", "on", "--no-escape"]
    began = time.perf_counter()
    process = subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, peak_resident_bytes(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert process.stdout is not None
    spoken = process.stdout.read()
    process.wait()
    done.set()
    watcher.join()
    if process.returncode:
        raise PackError(f"llama-embedding ended with {process.returncode}: {spoken[-600:]}")
    return spoken, time.perf_counter() - began, most


def ways(scratch: Path, texts: list[str], threads: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Who embeds the texts, by name."""
    log, made = scratch / "run.log", checkpoint(scratch)

    def job(name: str, env: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
        result = finish(f"benchmarks.retrieval_jobs:{name}", log, env, **arguments)
        return {**result.value, "peak_bytes": result.peak_bytes}

    def ours(recipe_id: str) -> dict[str, Any]:
        runtime, recipe = found(recipe_id)
        return job(
            "ours",
            session=runtime.retrieval_session,  # type: ignore[attr-defined]
            artifact=str(artifact(scratch, recipe_id)),
            texts=texts,
            threads=threads,
            context=CONTEXT,
            kv=recipe.kv,
        )

    def optimum() -> dict[str, Any]:
        folder = str(scratch / "optimum")
        return job("optimum", checkpoint=str(made), artifact=folder, texts=texts, threads=threads)

    def sentences(dtype: str | None) -> dict[str, Any]:
        root = str(Path(__file__).resolve().parent.parent)
        env = {"PYTHONPATH": f"{root}{os.pathsep}{peer_packages(scratch)}"}
        return job(
            "sentence_transformers",
            env,
            checkpoint=str(made),
            texts=texts,
            threads=threads,
            dtype=dtype,
        )

    def peer() -> dict[str, Any]:
        model = next(artifact(scratch, RECIPES[0]).glob("*.gguf"))
        return by_llama_embedding(llama_embedding(scratch), model, texts, threads, scratch)

    return {
        **{recipe_id: (lambda recipe_id=recipe_id: ours(recipe_id)) for recipe_id in RECIPES},
        "llama-embedding": peer,
        "optimum-openvino": optimum,
        "sentence-transformers": lambda: sentences(None),
        FLOAT32: lambda: sentences("float32"),
    }


def prepare(scratch: Path, names: Sequence[str], layers: int | None) -> None:
    """Build, export and install what is missing for these."""
    made = checkpoint(scratch, layers)
    for recipe_id in RECIPES:
        if recipe_id in names or (recipe_id == RECIPES[0] and PEERS[0] in names):
            artifact(scratch, recipe_id)
    if PEERS[1] in names and not (scratch / "optimum").is_dir():
        half = scratch / ".optimum"
        finish(
            "benchmarks.retrieval_jobs:optimum",
            scratch / "build.log",
            checkpoint=str(made),
            artifact=str(half),
            texts=[],
            threads=1,
        )
        half.replace(scratch / "optimum")
    if PEERS[0] in names:
        llama_embedding(scratch)
    if {PEERS[2], FLOAT32} & {*names}:
        peer_packages(scratch)


def peer_versions(scratch: Path, names: Sequence[str]) -> dict[str, str | None]:
    """What the others are, by the names of their distributions."""
    found_versions = {name: installed(name) for name in ("torch", "transformers", "optimum-intel")}
    if {PEERS[2], FLOAT32} & {*names}:
        path = [str(peer_packages(scratch))]
        for one in distributions(name="sentence-transformers", path=path):
            found_versions["sentence-transformers"] = one.version
    return found_versions


def row_of(name: str, runs: list[dict[str, Any]], precise: list[float] | None) -> dict[str, Any]:
    """Medians of a way, and the cosine of its first vector to that of Sentence Transformers in
    float32."""
    vector = runs[0].get("vector")
    cosine = None
    if vector and precise and len(vector) == len(precise):
        cosine = sum(one * other for one, other in zip(vector, precise, strict=True))
    return {
        "name": name,
        "documents_per_s": statistics.median(run["documents_per_s"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "cosine": cosine,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=cores().computing)
    parser.add_argument("--only", nargs="+", choices=[*RECIPES, *PEERS])
    parser.add_argument("--layers", type=int, help="of a smaller network, to try the script")
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    if options.layers is not None:
        scratch /= f"layers-{options.layers}"
    scratch.mkdir(parents=True, exist_ok=True)
    names = options.only or [*RECIPES, *PEERS]
    prepare(scratch, names, options.layers)
    if options.build_only:
        print(json.dumps({"built": sorted(path.name for path in scratch.iterdir())}))
        return 0
    made = finish(
        "benchmarks.retrieval_jobs:texts_of",
        scratch / "run.log",
        checkpoint=str(checkpoint(scratch)),
        tokens=options.tokens,
        count=options.documents,
        seed=1,
    ).value
    all_ways = ways(scratch, made["texts"], options.threads)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        # In another order every round, so that nobody is always behind the same one.
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            try:
                runs[name].append(watched(all_ways[name]))
            except PackError as error:
                failed[name] = error.message
                continue
            shown = {key: value for key, value in runs[name][-1].items() if key != "vector"}
            print(f"round {number + 1} {name}: {json.dumps(shown)}", flush=True)
    told = {name: found_runs for name, found_runs in runs.items() if found_runs}
    yardstick = told.get(FLOAT32)
    precise = yardstick[0]["vector"] if yardstick else None
    rows = [row_of(name, found_runs, precise) for name, found_runs in told.items()]
    print("\n| | documents/s | peak memory | cosine |\n| --- | ---: | ---: | ---: |")
    for row in rows:
        cosine = "" if row["cosine"] is None else f"{row['cosine']:.4f}"
        rate, memory = row["documents_per_s"], human_bytes(row["peak_bytes"])
        print(f"| {row['name']} | {rate:.2f} | {memory} | {cosine} |")
    busy = [run["other_cpu_cores"] or 0.0 for found_runs in told.values() for run in found_runs]
    clean = max(busy, default=0.0) <= BUSY_CORES
    verdicts = _verdicts(rows)
    report = {
        "benchmark": "retrieval",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(RECIPES),
        "model": MODEL,
        "layers": options.layers or shape_of(MODEL).layers,
        "peers": peer_versions(scratch, names),
        "threads": options.threads,
        "documents": options.documents,
        "tokens": statistics.median(made["tokens"]),
        "rows": rows,
        "failed": failed,
        "clean": clean,
        **verdicts,
    }
    print(json.dumps(report))
    return 0 if clean and all(verdicts.values()) else 1


def _verdicts(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Whether the best of ours is as fast as the best of the others, and whether each of ours takes
    half of the memory of Sentence Transformers in float32; None where nobody was there to compare
    with."""
    mine = [row for row in rows if row["name"] in RECIPES]
    others = [row for row in rows if row["name"] in PEERS]
    memory = next((row["peak_bytes"] for row in others if row["name"] == FLOAT32), None)
    fast = None
    if mine and others:
        best = max(row["documents_per_s"] for row in others)
        fast = max(row["documents_per_s"] for row in mine) >= BAR * best
    small = None
    if mine and memory is not None:
        small = all(row["peak_bytes"] <= MEMORY_BAR * memory for row in mine)
    return {"as_fast": fast, "half_the_memory": small}


if __name__ == "__main__":
    sys.exit(main())
