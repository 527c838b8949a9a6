"""Plain `bench` beside `bench --on local:` of one package: the way to a device must not be part of
the figures.

    python benchmarks/lab_local.py --scratch FOLDER [--package PACKAGE] [--rounds N]

Without a package one of Qwen3-0.6B with random weights is built in the scratch folder. All ways
run as commands of their own, with their own search for threads, and take turns in an order that
turns round each time. The agent of `local:` is linked to the library that the session here loads,
so the same kernels compute.

That library keeps the working memory of its kernels in an array that `new` aligns to 16 bytes, and
with wide vectors its place in a line of the cache decides up to an eighth of a prompt's time. The
agent always begins it with a line. In the session here its place is a matter of what was allocated
before, so plain `bench` runs twice a round: as it is, and `aligned`, with a `new` that aligns as
the agent's does (a small library before the others, LD_PRELOAD). `local:` is held to the aligned
one; how the plain one stands to that is what the place makes out.

Compared is the ratio of two figures of a round, as its median and quartiles. Two ways agree where
each median is within five per cent of 1. Exit code 0 only where all do and no round was disturbed
by other programs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager.device.this_machine import describe_machine
from packager.errors import ExitCode
from packager.json_values import JsonObject, at_or_none, object_at

FIGURES = (
    "decode_tps",
    "decode_empty_tps",
    "decode_full_tps",
    "prefill_tps",
    "prefill_512_tps",
    "ttft_ms",
)
WAYS: dict[str, tuple[str, ...]] = {"plain": (), "aligned": (), "local": ("--on", "local:")}
BAR_PERCENT = 5.0
NEW = """#include <cstdlib>
#include <new>
void * operator new[](std::size_t size) {
    void * memory = nullptr;
    if (posix_memalign(&memory, 64, size) != 0) throw std::bad_alloc();
    return memory;
}
void operator delete[](void * memory) noexcept { std::free(memory); }
void operator delete[](void * memory, std::size_t) noexcept { std::free(memory); }
"""


def aligning(scratch: Path) -> Path:
    """A library whose `new` aligns arrays to 64 bytes; the agent of `local:` needs a compiler as
    well."""
    source, library = scratch / "new.cpp", scratch / "new.so"
    source.write_text(NEW, "utf-8")
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))))
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(words, check=True)
    return library


def command(words: list[str], scratch: Path, preload: Path | None = None) -> JsonObject:
    """The JSON of a command of qwen-pack, with a cache and a device's folder in the scratch
    folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")}
    if preload is not None:
        environment["LD_PRELOAD"] = str(preload)
    done = subprocess.run(
        [sys.executable, "-m", "packager.cli", *words, "--json"],
        check=False,
        stdout=subprocess.PIPE,
        env=environment,
    )
    if done.returncode not in (ExitCode.DONE, ExitCode.BUDGET):
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}")
    answer: JsonObject = json.loads(done.stdout)
    return answer


def package(scratch: Path) -> Path:
    """A package with random weights in the true shape, built once."""
    folder = scratch / "package"
    if not folder.exists():
        words = ["build", "--target", "laptop-cpu", "--model", "Qwen3-0.6B", "--weights", "dummy"]
        command([*words, "--recipe", "gguf:Q4_K_M", "--out", str(folder)], scratch)
    return folder


def rounds(folder: Path, count: int, scratch: Path) -> list[dict[str, JsonObject]]:
    """The figures of all ways, round by round."""
    taken = []
    preload = {"aligned": aligning(scratch)}
    for number in range(count):
        order = list(WAYS) if number % 2 == 0 else list(reversed(WAYS))
        figures = {
            way: object_at(
                command(["bench", str(folder), *WAYS[way]], scratch, preload.get(way)), "measured"
            )
            for way in order
        }
        shown = ", ".join(f"{way} {at_or_none(figures[way], 'decode_tps', float)}" for way in WAYS)
        print(f"round {number + 1}: tok/s {shown}", file=sys.stderr)
        taken.append(figures)
    return taken


def compared(taken: list[dict[str, JsonObject]], way: str, to: str) -> list[JsonObject]:
    """One row per figure: how one way stands to another, over the rounds."""
    rows: list[JsonObject] = []
    for name in FIGURES:
        pairs = [
            (at_or_none(ways[way], name, float), at_or_none(ways[to], name, float))
            for ways in taken
        ]
        ratios = [figure / other for figure, other in pairs if figure and other]
        if not ratios:
            continue
        median = statistics.median(ratios)
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [median] * 3
        rows.append(
            {
                "figure": name,
                "ratio": median,
                "quartiles": [quartiles[0], quartiles[2]],
                "agrees": abs(median - 1) * 100 <= BAR_PERCENT,
            }
        )
    return rows


def main() -> int:
    """Measure, print the table on standard error and the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--package", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    scratch: Path = asked.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    folder = (asked.package or package(scratch)).absolute()
    command(["bench", str(folder), *WAYS["local"]], scratch)  # builds the agent, pushes the model
    taken = rounds(folder, asked.rounds, scratch)
    rows = compared(taken, "local", "aligned")
    place = compared(taken, "plain", "aligned")
    disturbed = sum(bool(way.get("noisy")) for pair in taken for way in pair.values())
    for title, table in (("local to aligned", rows), ("plain to aligned", place)):
        print(title, file=sys.stderr)
        for row in table:
            print(f"{row['figure']:18} {row['ratio']:.3f}  {row['quartiles']}", file=sys.stderr)
    agree = bool(rows) and all(row["agrees"] for row in rows)
    result = {
        "schema": "qwen-pack/lab-local/2",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "rounds": len(taken),
        "disturbed": disturbed,
        "rows": rows,
        "place": place,
        "threads": [[pair[way].get("threads") for way in WAYS] for pair in taken],
        "agree": agree,
    }
    print(json.dumps(result))
    return 0 if agree and not disturbed else 1


if __name__ == "__main__":
    sys.exit(main())
