"""First token after a fixed prefix, cold and warm: the prefix computed, and its state read from a
file. The last line is one JSON object.

    python benchmarks/warm_start.py [--model Qwen3-0.6B] [--recipe gguf:Q4_K_M] [--scratch FOLDER]
        [--prefix 512 --prefix 2048 ...] [--rounds 3]

Random weights of the model's true shape. Behind the prefix stands a question of 16 tokens. Cold and
warm take turns, so that a busy machine disturbs both; times are medians, and the answers are
compared token by token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import built, finish, found, scratch_folder, versions
from packager.device.this_machine import describe_machine

PREFIXES = (512, 2048, 4096)
QUESTION, ANSWER = 16, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="Qwen3-0.6B")
    parser.add_argument("--recipe", default="gguf:Q4_K_M")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--prefix", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    prefixes = asked.prefix or list(PREFIXES)
    runtime, recipe = found(asked.recipe)
    rows: list[dict[str, Any]] = []
    with scratch_folder(asked.scratch) as scratch:
        places, failed = built(asked.model, [asked.recipe], scratch)
        if failed:
            print(failed[asked.recipe], file=sys.stderr)
            return 1
        for tokens in prefixes:
            row = finish(
                "benchmarks.jobs:warm_start",
                scratch / "warm.log",
                session=runtime.session,
                artifact=str(places[asked.recipe]),
                settings={
                    "context": tokens + QUESTION + ANSWER,
                    "kv": recipe.kv,
                    "threads": None,
                    "gpu_layers": 0,
                },
                prefix_tokens=tokens,
                question_tokens=QUESTION,
                new_tokens=ANSWER,
                rounds=asked.rounds,
                folder=str(scratch / "states"),
            ).value
            cold = statistics.median(row["cold_ms"])
            warm = statistics.median(row["warm_ms"])
            row = {"prefix_tokens": tokens, "times": cold / warm, **row}
            rows.append(row)
            size = row["state_bytes"] / 1e6
            print(
                f"{tokens:>5} tokens: {cold:8.0f} ms cold, {warm:6.0f} ms warm, "
                f"{row['times']:5.1f} times, state {size:.0f} MB, "
                f"{'the same answers' if row['same'] else 'OTHER ANSWERS'}",
                flush=True,
            )
    print(
        json.dumps(
            {
                "model": asked.model,
                "recipe": asked.recipe,
                "machine": describe_machine(),
                "versions": versions([asked.recipe]),
                "rows": rows,
            }
        )
    )
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
