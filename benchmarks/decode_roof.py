"""Decoding of each runtime, tuned, beside its peer as it comes, and how near both come to what the
memory of this machine gives. Random weights in the true shape; the last line is one JSON object.

    python benchmarks/decode_roof.py --scratch FOLDER --build [--models NAME ...] [--runtimes ...]
    python benchmarks/decode_roof.py --scratch FOLDER [--models NAME ...] [--runtimes ...]
                                     [--rounds N] [--again] [--every] [--tiny]
    python benchmarks/decode_roof.py --scratch FOLDER --profile | --defaults

Peers, of the same checkpoint: llama-bench with its own settings over Q4_K_M, built in the scratch
folder from the source archive of the installed llama-cpp-python; optimum's int4 export with its own
settings through openvino_genai.LLMPipeline; the default int4 output of ONNX Runtime GenAI's model
builder through its own loop. Ours is the fastest of a runtime's `CANDIDATES` in one round, among
those that differ from the unquantized model by no more than the peer does: the mean divergence over
the same tokens, with the F16 GGUF as the unquantized model. Ours and the peer take turns, each
first in every other round, with the memory's rate measured before every round.

`--build` makes every artifact, the peers' tools and the divergences, which no other program
disturbs, and stops; what is there already is taken as it is. Then only speed is left to measure:
one entry per shape and runtime of decode-roof.json in the scratch folder. Every figure is written
there as soon as it is known, and the next call goes on after it, so that the work can be cut
anywhere. `--profile` adds to each entry where the time of a token goes, by the engines' own counts.
`--defaults` measures nothing and prints the rows of targets/tuned.toml that follow from the entries
so far. `--tiny` takes the small model of the tests, to see that the script works; its
figures mean nothing.
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
from dataclasses import asdict, dataclass, field
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
from targets.gguf.library import EXTRA_BUFFERS
from targets.machine.isa import processor

MODELS = ("Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2.5-1.5B-Instruct", "Qwen3-1.7B")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe, and what its session is opened with besides; `env` are variables of its process."""

    recipe: str
    how: str = ""
    session: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in the results."""
        return f"{self.recipe}, {self.how}" if self.how else self.recipe

    def settings(self) -> dict[str, Any]:
        """Of its session."""
        kv = found(self.recipe)[1].kv
        return {"context": CONTEXT, "kv": kv, "threads": None, **self.session}


_F32 = {"INFERENCE_PRECISION_HINT": "f32"}
_WIDE = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
_STATE = {"ATTENTION_BACKEND": "SDPA"}
_SYM, _HEAD4 = "openvino:int4_sym_g128", "openvino:int4_asym_g64_head4"
CANDIDATES = {
    "gguf": (
        Candidate("gguf:Q4_K_M"),
        Candidate("gguf:Q4_K_M/kv_q8_0"),
        Candidate("gguf:Q4_K_M/kv_f32"),
        Candidate("gguf:Q4_K_M", "no flash attention", {"flash_attention": False}),
        Candidate("gguf:Q4_K_M/kv_f32", "no flash attention", {"flash_attention": False}),
        Candidate("gguf:Q4_K_M", "not repacked", env={EXTRA_BUFFERS: "0"}),
        Candidate("gguf:Q4_0"),
        Candidate("gguf:Q4_0/kv_q8_0"),
    ),
    "openvino": (
        Candidate(_SYM),
        Candidate(_SYM, "activations by 128", {"properties": _WIDE}),
        Candidate(_SYM, "32 bits", {"properties": _F32}),
        Candidate(_SYM, "32 bits, activations by 128", {"properties": {**_F32, **_WIDE}}),
        Candidate(_SYM, "SDPA", {"properties": _STATE}),
        Candidate(_SYM, "SDPA, 32 bits, by 128", {"properties": {**_STATE, **_F32, **_WIDE}}),
        Candidate("openvino:int4_asym_g128", "activations by 128", {"properties": _WIDE}),
        Candidate(_HEAD4),
        Candidate(_HEAD4, "32 bits", {"properties": _F32}),
    ),
    "onnx": (
        Candidate("onnx:int4_sym_b32"),
        Candidate("onnx:int4_sym_b128"),
        Candidate("onnx:int4_asym_b128_head8"),
        Candidate("onnx:int4_asym_b64_head8"),
    ),
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
PROFILED = 16
"""Tokens whose operations are counted."""
COMPARED = 96
"""Tokens over which the divergence is taken."""
ALIKE = 1.05
"""Times the peer's divergence up to which ours counts as equal: it is an estimate over few
tokens."""


class Book:
    """The entries so far, written with every change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries: dict[str, dict[str, Any]] = (
            json.loads(file.read_text()) if file.is_file() else {}
        )

    def entry(self, key: str) -> dict[str, Any]:
        """What is known of a shape and runtime."""
        return self.entries.setdefault(key, {})

    def write(self) -> None:
        """Keep it."""
        write_json(self._file, self.entries)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one shape's artifacts are."""

    name: str
    scratch: Path
    tiny: bool

    @property
    def folder(self) -> Path:
        """Of this shape."""
        return self.scratch / self.name

    @property
    def log(self) -> Path:
        """Of the jobs."""
        return self.folder / "log"

    @property
    def truth(self) -> Path:
        """What the unquantized model expects."""
        return self.folder / "unquantized.npy"

    def shape(self) -> Shape:
        """Of the model."""
        return Checkpoint.open(self.checkpoint()).shape if self.tiny else shape_of(self.name)

    def checkpoint(self) -> Path:
        """The checkpoint that everything is made of; written where it is not there."""
        if self.tiny:
            return ROOT / "tests" / "models" / TINY
        place = self.folder / "checkpoint"
        if not place.is_dir():
            variant = catalog.find(self.name)
            shape = asdict(shape_of(self.name))
            job = "packager.sources.dummy:fetch"
            finish(job, self.log, repo_id=variant.repo_id, shape=shape, out=str(place))
        return place

    def made(self, recipe_id: str) -> Path:
        """Our artifact; recipes that differ in the cache share it."""
        place = self.folder / recipe_id.partition("/")[0].replace(":", "-")
        if not place.is_dir():
            runtime, recipe = found(recipe_id)
            half = self.folder / f".{place.name}"
            shutil.rmtree(half, ignore_errors=True)
            order: dict[str, Any] = {
                "checkpoint": str(self.checkpoint()),
                "recipe": asdict(recipe),
                "out": str(half),
            }
            finish(runtime.build_job, self.log, workload={"context": CONTEXT}, **order)
            half.replace(place)
            print(f"{self.name} {place.name}: built", flush=True)
        return place

    def peers(self, runtime: str) -> Path:
        """What the peer's own tool makes of the checkpoint with its own settings."""
        if runtime == "gguf":
            return self.made("gguf:Q4_K_M")
        place = self.folder / f"peer-{runtime}"
        if place.is_dir():
            return place
        half = self.folder / f".{place.name}"
        shutil.rmtree(half, ignore_errors=True)
        source = str(self.checkpoint())
        export = "optimum.commands.optimum_cli export openvino --task text-generation-with-past"
        build = "onnxruntime_genai.models.builder -m peer -p int4 -e cpu"
        cache = str(self.folder / "peer-cache")
        order = {
            "openvino": [*export.split(), "--weight-format", "int4", "--model", source, str(half)],
            "onnx": [*build.split(), "-i", source, "-o", str(half), "-c", cache],
        }[runtime]
        with (self.folder / f"peer-{runtime}.log").open("wb") as log:
            subprocess.run([sys.executable, "-m", *order], check=True, stdout=log, stderr=log)
        shutil.rmtree(self.folder / "peer-cache", ignore_errors=True)
        half.replace(place)
        print(f"{self.name} {place.name}: built", flush=True)
        return place


def candidates(place: Place, runtime: str) -> list[Candidate]:
    """Those of a runtime that can be built in this shape."""
    shape = place.shape()
    rows = []
    for one in CANDIDATES[runtime]:
        engine, recipe = found(one.recipe)
        if engine.obstacle(shape, recipe) is None:
            rows.append(one)
    return rows


def our_rates(candidate: Candidate, place: Place, repeats: int) -> dict[str, Any]:
    """Through our session, as a package runs it: threads by its own trial."""
    runtime, _ = found(candidate.recipe)
    value: Any = finish(
        "benchmarks.jobs:decode_rates",
        place.log,
        candidate.env,
        session=runtime.session,
        artifact=str(place.made(candidate.recipe)),
        settings=candidate.settings(),
        prompt_tokens=PROMPT,
        new_tokens=NEW_TOKENS,
        repeats=repeats,
    ).value
    return dict(value)


def peer_rates(runtime: str, place: Place) -> dict[str, Any]:
    """The peer's own instrument with its own settings."""
    artifact = place.peers(runtime)
    if runtime == "gguf":
        model = str(next(artifact.glob("*.gguf")))
        order = [str(peer_tool(place.scratch, "llama-bench")), "-m", model]
        order += ["-p", "0", "-n", str(NEW_TOKENS), "-d", str(PROMPT), "-r", "2", "-o", "json"]
        done = subprocess.run(order, check=True, capture_output=True, text=True)
        row = next(row for row in json.loads(done.stdout) if row["n_gen"])
        return {"decode_tps": statistics.median(row["samples_ts"]), "threads": row["n_threads"]}
    job = {"openvino": "openvino_as_it_comes", "onnx": "onnx_as_it_comes"}[runtime]
    how: dict[str, Any] = {"prompt_tokens": PROMPT, "new_tokens": NEW_TOKENS, "repeats": 2}
    value: Any = finish(f"benchmarks.jobs:{job}", place.log, artifact=str(artifact), **how).value
    return dict(value)


def logged(candidate: Candidate, artifact: Path, place: Place, **files: str) -> dict[str, Any]:
    """See benchmarks.jobs.logged_after."""
    runtime, _ = found(candidate.recipe)
    value: Any = finish(
        "benchmarks.jobs:logged_after",
        place.log,
        candidate.env,
        session=runtime.session,
        artifact=str(artifact),
        settings=candidate.settings(),
        tokens=COMPARED,
        **files,
    ).value
    return dict(value)


def prepared(place: Place, runtime: str, entry: dict[str, Any], book: Book) -> None:
    """Everything that is built, and what each artifact loses, beside the peer's."""
    place.folder.mkdir(parents=True, exist_ok=True)
    if runtime == "gguf":
        peer_tool(place.scratch, "llama-bench")
    if not place.truth.is_file():
        exact = place.made(UNQUANTIZED)
        half = place.truth.with_name("half.npy")
        logged(Candidate(UNQUANTIZED), exact, place, out=str(half))
        half.replace(place.truth)
        shutil.rmtree(exact)
    lost = entry.setdefault("divergences", {})
    peer = PEERS[runtime]
    # The peer's artifact goes through our session of that runtime with the engine's own settings.
    rows = [(peer, CANDIDATES[runtime][0], place.peers(runtime))]
    rows += [(one.label, one, place.made(one.recipe)) for one in candidates(place, runtime)]
    for label, candidate, artifact in rows:
        if label not in lost:
            lost[label] = logged(candidate, artifact, place, truth=str(place.truth))["mean"]
            book.write()
            print(f"{place.name} {label}: {lost[label]:.4f} nats", flush=True)


def fair(every: list[Candidate], lost: dict[str, float], peers: float) -> list[Candidate]:
    """The candidates that lose no more than the peer; the one that loses least where none does."""
    rows = [one for one in every if lost[one.label] <= ALIKE * peers]
    return rows or [min(every, key=lambda one: lost[one.label])]


def chosen(place: Place, runtime: str, entry: dict[str, Any], book: Book, every: bool) -> Candidate:
    """The candidate that decodes fastest among those that lose no more than the peer."""
    rates = entry.setdefault("candidates", {})
    known, lost = candidates(place, runtime), entry["divergences"]
    fairly = fair(known, lost, lost[PEERS[runtime]])
    for one in known if every else fairly:
        if one.label not in rates:
            rates[one.label] = our_rates(one, place, 1)
            book.write()
            print(f"{place.name} {one.label}: {rates[one.label]['decode_tps']:.1f}", flush=True)
    return max(fairly, key=lambda one: float(rates[one.label]["decode_tps"]))


def shares(shape: Shape, recipe_id: str) -> dict[str, float]:
    """Where the bytes of a token are, as shares: the output matrix, the cache, everything else."""
    runtime, recipe = found(recipe_id)
    filled = PROMPT + NEW_TOKENS // 2
    whole = runtime.decode_bytes(shape, recipe, filled)
    weights = runtime.decode_bytes(shape, recipe, 0)
    output = shape.vocab * shape.hidden / shape.parameters()
    cache = (whole - weights) / whole
    return {"cache": cache, "output": (1 - cache) * output, "layers": (1 - cache) * (1 - output)}


def compared(
    place: Place, runtime: str, candidate: Candidate, entry: dict[str, Any], book: Book, count: int
) -> None:
    """Rounds of ours and the peer's, until there are `count`."""
    engine, recipe = found(candidate.recipe)
    read = engine.decode_bytes(place.shape(), recipe, PROMPT + NEW_TOKENS // 2)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: our_rates(candidate, place, 2),
        "peer": lambda: peer_rates(runtime, place),
    }
    rounds = entry.setdefault("rounds", [])
    while len(rounds) < count:
        rate, others = memory_rate(place.log)
        order = ("ours", "peer") if len(rounds) % 2 == 0 else ("peer", "ours")
        seen = {who: watched(ways[who]) for who in order}
        rounds.append({**seen, "memory_rate": rate, "other_load": others, "roof_tps": rate / read})
        ratio = seen["ours"]["decode_tps"] / seen["peer"]["decode_tps"]
        print(f"{place.name} {candidate.label}, round {len(rounds)}: {ratio:.2f}", flush=True)
        entry |= summary(place, runtime, candidate, entry) | {"bytes_per_token": read}
        book.write()


def summary(
    place: Place, runtime: str, candidate: Candidate, entry: dict[str, Any]
) -> dict[str, Any]:
    """Medians over the rounds so far."""
    rounds = entry["rounds"]

    def middle(figure: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(figure(row) for row in rounds)

    return {
        "model": place.name,
        "runtime": runtime,
        "peer": PEERS[runtime],
        "recipe": candidate.recipe,
        "how": candidate.label,
        "peer_divergence": entry["divergences"][PEERS[runtime]],
        "divergence": entry["divergences"][candidate.label],
        "ratio": middle(lambda row: row["ours"]["decode_tps"] / row["peer"]["decode_tps"]),
        "roof_share": middle(lambda row: row["ours"]["decode_tps"] / row["roof_tps"]),
        "decode_tps": middle(lambda row: row["ours"]["decode_tps"]),
        "peer_tps": middle(lambda row: row["peer"]["decode_tps"]),
        "shares": shares(place.shape(), candidate.recipe),
    }


def profiled(place: Place, entry: dict[str, Any]) -> dict[str, Any]:
    """Where the time of a token of the chosen candidate goes."""
    (candidate,) = (one for one in CANDIDATES[entry["runtime"]] if one.label == entry["how"])
    runtime, _ = found(candidate.recipe)
    threads = entry["rounds"][-1]["ours"]["threads"]
    value: Any = finish(
        f"benchmarks.profile_jobs:{runtime.name.replace('.', '_')}",
        place.log,
        candidate.env,
        artifact=str(place.made(candidate.recipe)),
        settings={**candidate.settings(), "threads": threads},
        prompt_tokens=PROMPT,
        steps=PROFILED,
    ).value
    print(f"{place.name} {candidate.label}: of {1000 / entry['decode_tps']:.1f} ms a token")
    for name, taken in sorted(value["ms"].items(), key=lambda row: -row[1])[:8]:
        print(f"    {taken:6.2f} ms  {value['count'][name]:5.0f} x {name}")
    return dict(value)


def table(rows: list[dict[str, Any]]) -> None:
    print("\n| shape | ours | peer | tok/s, peer's | of the peer | nats, peer's | of the roof |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        rates = f"{row['decode_tps']:.1f}, {row['peer_tps']:.1f} | {row['ratio']:.2f}"
        lost = f"{row['divergence']:.4f}, {row['peer_divergence']:.4f}"
        figures = f"{rates} | {lost} | {row['roof_share']:.0%}"
        print(f"| {row['model']} | {row['how']} | {row['peer']} | {figures} |")


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
        best = Counter(row["recipe"] for row in own).most_common(1)[0][0]
        row = next(row for row in own if row["recipe"] == best)
        rates: dict[str, float] = {}
        for one in CANDIDATES[runtime]:
            rate = row["candidates"].get(one.label, {}).get("decode_tps", 0.0)
            rates[one.recipe] = max(rates.get(one.recipe, 0.0), round(rate, 1))
        others = ", ".join(
            f"{json.dumps(name)} = {rate}" for name, rate in rates.items() if rate and name != best
        )
        text.append(
            f"[[default]]\nruntime = {json.dumps(found(best)[0].name)}\n"
            f"isa = {json.dumps(kinds)}\nrecipe = {json.dumps(best)}\n"
            f"model = {json.dumps(row['model'])}\ndecode_tps = {rates[best]}\n"
            f"beside = {{ {others} }}\ndivergence = {row['divergence']:.4f}\n"
            'source = "docs/measurements/decode-roof.md"\n'
        )
    return "\n".join(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=lambda text: Path(text).resolve())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--runtimes", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured")
    parser.add_argument("--every", action="store_true", help="also candidates that lose more")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--defaults", action="store_true")
    return parser.parse_args()


def work(options: argparse.Namespace, scratch: Path, book: Book) -> None:
    for name in [TINY] if options.tiny else options.models:
        place = Place(name, scratch, options.tiny)
        for runtime in options.runtimes:
            entry = book.entry(f"{name} {runtime}")
            prepared(place, runtime, entry, book)
            if options.build:
                continue
            if options.again:
                for key in ("candidates", "rounds"):
                    entry.pop(key, None)
            if options.profile:
                if entry.get("rounds"):
                    entry["profile"] = profiled(place, entry)
                    book.write()
                continue
            best = chosen(place, runtime, entry, book, options.every)
            compared(place, runtime, best, entry, book, options.rounds)
        if set(options.runtimes) == set(PEERS):
            shutil.rmtree(place.folder / "checkpoint", ignore_errors=True)


def main() -> int:
    options = parsed()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with scratch_folder(options.scratch) as scratch:
        book = Book(scratch / "decode-roof.json")
        if options.defaults:
            print(defaults([row for row in book.entries.values() if row.get("rounds")]))
            return 0
        work(options, scratch, book)
    rows = [row for row in book.entries.values() if row.get("rounds")]
    if rows:
        table(rows)
    ratios = [row["ratio"] for row in rows]
    recipes = [one.recipe for each in CANDIDATES.values() for one in each]
    document = {
        "rows": rows,
        "least_ratio": min(ratios, default=None),
        "median_ratio": statistics.median(ratios) if ratios else None,
        "complete": len(rows) >= len(MODELS) * len(PEERS),
        "machine": describe_machine(),
        "versions": versions(recipes),
    }
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
