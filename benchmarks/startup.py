"""How long the commands take that people type most, in fresh processes: median of alternating runs.

    python benchmarks/startup.py [--runs 15]

The last line is one JSON object. `python -c pass` runs in between: what is left above it is ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": ["qwen-pack", "--help"],
    "version": ["qwen-pack", "--version"],
    "targets": ["qwen-pack", "targets", "--json"],
    "models": ["qwen-pack", "models", "--json"],
    "fit": ["qwen-pack", "fit", "--target", "laptop-cpu", "--json"],
}
BARS_S = {"help": 0.15, "fit": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    script = Path(sys.executable).with_name("qwen-pack")
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            words = [str(script) if word == "qwen-pack" else word for word in command]
            started = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        bar = f"   bar {BARS_S[name]:.2f} s" if name in BARS_S else ""
        print(f"{name:10} {seconds:6.3f} s{bar}")
    print(
        json.dumps(
            {
                "benchmark": "startup",
                "runs": runs,
                "median_s": medians,
                "bars_s": BARS_S,
                "passed": all(medians[name] <= bar for name, bar in BARS_S.items()),
            }
        )
    )


if __name__ == "__main__":
    main()
