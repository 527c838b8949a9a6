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
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import finish, found, scratch_folder, versions
from benchmarks.harness_vs_peers import peer_tool, watched
from benchmarks.roof import (
    CANDIDATES,
    MODELS,
    NEW_TOKENS,
    PEERS,
    PROMPT,
    TINY,
    UNQUANTIZED,
    Candidate,
    Place,
    candidates,
)
from benchmarks.runtimes import memory_rate
from packager.device.this_machine import describe_machine
from packager.errors import PackError
from packager.files import write_json
from packager.shape import Shape
from targets.machine.isa import processor

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


def our_rates(candidate: Candidate, place: Place, repeats: int) -> dict[str, Any]:
    """Through our session, as a package runs it: threads by its own trial."""
    runtime, _ = found(candidate.recipe)
    value: Any = finish(
        "benchmarks.jobs:decode_rates",
        place.log,
        candidate.variables(),
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
        candidate.variables(),
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
    rows += [(one.numerics, one, place.made(one.recipe)) for one in candidates(place, runtime)]
    for label, candidate, artifact in rows:
        if label not in lost:
            lost[label] = logged(candidate, artifact, place, truth=str(place.truth))["mean"]
            book.write()
            print(f"{place.name} {label}: {lost[label]:.4f} nats", flush=True)


def fair(every: list[Candidate], lost: dict[str, float], peers: float) -> list[Candidate]:
    """The candidates that lose no more than the peer; the one that loses least where none does."""
    rows = [one for one in every if lost[one.numerics] <= ALIKE * peers]
    return rows or [min(every, key=lambda one: lost[one.numerics])]


def chosen(place: Place, runtime: str, entry: dict[str, Any], book: Book, every: bool) -> Candidate:
    """The candidate that decodes fastest among those that lose no more than the peer."""
    rates = entry.setdefault("candidates", {})
    known, lost = candidates(place, runtime), entry["divergences"]
    fairly = fair(known, lost, lost[PEERS[runtime]])

    def tried(one: Candidate) -> float:
        if one.label not in rates:
            rates[one.label] = our_rates(one, place, 1)
            book.write()
            print(f"{place.name} {one.label}: {rates[one.label]['decode_tps']:.1f}", flush=True)
        return float(rates[one.label]["decode_tps"])

    for one in known if every else fairly:
        tried(one)
    best = max(fairly, key=tried)
    return max((best, replace(best, small=True)), key=tried)


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
        "divergence": entry["divergences"][candidate.numerics],
        "ratio": middle(lambda row: row["ours"]["decode_tps"] / row["peer"]["decode_tps"]),
        "roof_share": middle(lambda row: row["ours"]["decode_tps"] / row["roof_tps"]),
        "decode_tps": middle(lambda row: row["ours"]["decode_tps"]),
        "peer_tps": middle(lambda row: row["peer"]["decode_tps"]),
        "shares": shares(place.shape(), candidate.recipe),
    }


def profiled(place: Place, entry: dict[str, Any]) -> dict[str, Any]:
    """Where the time of a token of the chosen candidate goes."""
    every = CANDIDATES[entry["runtime"]]
    both = [*every, *(replace(one, small=True) for one in every)]
    (candidate,) = (one for one in both if one.label == entry["how"])
    runtime, _ = found(candidate.recipe)
    threads = entry["rounds"][-1]["ours"]["threads"]
    value: Any = finish(
        f"benchmarks.profile_jobs:{runtime.name.replace('.', '_')}",
        place.log,
        candidate.variables(),
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


def trials(rows: list[dict[str, Any]]) -> None:
    print("\n| shape | candidate, one round | tok/s | nats |")
    print("| --- | --- | ---: | ---: |")
    for row in rows:
        for label, seen in row["candidates"].items():
            lost = row["divergences"][label.removesuffix(", small pages")]
            print(f"| {row['model']} | {label} | {seen['decode_tps']:.1f} | {lost:.4f} |")


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
        limit = ALIKE * row["peer_divergence"]
        for label, seen in row["candidates"].items():
            recipe = label.partition(",")[0]
            # What loses more stands behind no default.
            if row["divergences"][label.removesuffix(", small pages")] > limit:
                continue
            rates[recipe] = max(rates.get(recipe, 0.0), round(seen["decode_tps"], 1))
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
            try:
                prepared(place, runtime, entry, book)
            except PackError as error:
                print(f"{name} {runtime} is left out: {error.message}", flush=True)
                continue
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
        trials(rows)
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
