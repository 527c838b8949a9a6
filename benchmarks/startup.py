"""How long the commands take that people type most, in fresh processes: median of alternating runs.

    python benchmarks/startup.py [--runs 15] [--before FOLDER]

The last line is one JSON object. `python -c pass` runs in between: what is left above it is ours.
Every command runs once before, so that no run compiles modules.
With --before the same commands of another checkout run in turns with these, by the same interpreter
with the same libraries, and each command has its ratio: below 1 it became faster. For example:

    git worktree add /tmp/before 266f9d2
    python benchmarks/startup.py --before /tmp/before
    git worktree remove /tmp/before
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
NOTHING = "python"
COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "targets": ["targets", "--json"],
    "models": ["models", "--json"],
    "fit": ["fit", "--target", "laptop-cpu", "--json"],
}
BARS_S = {"help": 0.15, "fit": 0.5}


def seconds_of(words: list[str], checkout: Path) -> float:
    """One run, from start to end. The checkout's own modules come before installed ones. Raises
    subprocess.CalledProcessError."""
    variables = {**os.environ, "PYTHONPATH": str(checkout)}
    # Where it is set, every process would compile all modules again.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, cwd=checkout, env=variables)
    return time.perf_counter() - started


def medians_of(checkouts: list[Path], runs: int) -> list[dict[str, float]]:
    """The median seconds of every command, per checkout; all of them in turns, and once before."""
    times: list[dict[str, list[float]]] = [
        {name: [] for name in (NOTHING, *COMMANDS)} for _ in checkouts
    ]
    for number in range(runs + 1):
        for name in (NOTHING, *COMMANDS):
            words = ["-m", "packager.cli", *COMMANDS[name]] if name in COMMANDS else ["-c", "pass"]
            for checkout, taken in zip(checkouts, times, strict=True):
                seconds = seconds_of([sys.executable, *words], checkout)
                if number:
                    taken[name].append(seconds)
    return [{name: statistics.median(values) for name, values in taken.items()} for taken in times]


def main() -> None:
    """Measure, and print a line per command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--before", type=Path, help="Another checkout to compare with.")
    options = parser.parse_args()
    before = [options.before.resolve()] if options.before else []
    medians, *others = medians_of([HERE, *before], options.runs)
    ratios = {name: medians[name] / earlier[name] for earlier in others for name in COMMANDS}
    for name, seconds in medians.items():
        bar = f"   bar {BARS_S[name]:.2f} s" if name in BARS_S else ""
        ratio = f"   {ratios[name]:.2f} of before" if name in ratios else ""
        print(f"{name:10} {seconds:6.3f} s{bar}{ratio}")
    row = {
        "benchmark": "startup",
        "runs": options.runs,
        "median_s": medians,
        "bars_s": BARS_S,
        "passed": all(medians[name] <= bar for name, bar in BARS_S.items()),
    }
    if others:
        row |= {"before_median_s": others[0], "ratios": ratios}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
