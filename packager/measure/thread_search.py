"""How many threads a model runs fastest with here, found by measurement; a job for a child process
of its own.

The search loads the model as often as it must, so its memory is not the model's: it has a process
to itself. Its first load comes from a page cache that has forgotten the files, which is the cold
load of the measurement.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from packager.device.this_machine import usable_cores
from packager.files import regular_files
from packager.measure.gauges.load import Mark
from packager.measure.gauges.pages import forget
from packager.measure.noise import BUSY_CORES
from packager.measure.trials import answer, prompt_ids
from packager.process import resolve
from packager.runtime import Report, Session

# An answer of this length behind the workload's prompt is what the candidates are compared by.
_ANSWER = 128
_PROBE_PROMPT, _PROBE_TOKENS = 128, 12
# A count is tried so often, and a quick model so long: one answer of a few milliseconds takes
# chance for speed.
_LEAST_TRIALS, _MOST_TRIALS, _LEAST_S = 2, 20, 0.1
_BUDGET_S = 25.0
# Within this the fewer threads win: they leave cores to others and take less energy.
_CLOSE = 0.02
_COLD = 0.01


def search(
    report: Report, *, session: str, artifact: str, settings: dict[str, Any], prompt_tokens: int
) -> dict[str, Any]:
    """Try thread counts from all cores downwards; see `chosen` for which wins.

    Returns `threads`, `candidates[]` (threads, prefill_tps, token_ms, answer_s, trials),
    `load_cold` and `other_cpu_cores`. A session that can `use_threads(n)` is loaded once, others
    once for every candidate. The search ends when fewer threads are clearly slower, or its time is
    spent.
    """
    make = resolve(session)  # which imports the engine: no part of loading a model
    mark = Mark.now()
    began = time.monotonic()
    counts = thread_candidates(usable_cores())
    cached = forget(_files(Path(artifact)))
    rows: list[dict[str, Any]] = []
    load_cold: dict[str, Any] = {}
    model: Session | None = None
    try:
        for count in counts:
            if model is None or not hasattr(model, "use_threads"):
                if model is not None:
                    model.close()
                loading = time.perf_counter()
                model = make(artifact, {**settings, "threads": count})
                if not load_cold:
                    load_cold = {"seconds": time.perf_counter() - loading, "cached_share": cached}
            else:
                model.use_threads(count)
            assert model is not None
            rows.append({"threads": count, **_tried(model, settings["context"], prompt_tokens)})
            report.note(f"{count} threads: {rows[-1]['token_ms']:.1f} ms per token")
            best = min(row["answer_s"] for row in rows)
            if rows[-1]["answer_s"] > best * 1.1 or time.monotonic() - began > _BUDGET_S:
                break
    finally:
        if model is not None:
            model.close()
    others = mark.cores_since()
    return {
        "threads": chosen(rows),
        "candidates": rows,
        "other_cpu_cores": others,
        "noisy": (others or 0.0) > BUSY_CORES,
        "load_cold": {**load_cold, "cold": cached is not None and cached < _COLD},
    }


def chosen(rows: list[dict[str, Any]]) -> int:
    """The fewest threads among those that answer nearly as fast as the best."""
    best = min(row["answer_s"] for row in rows)
    return min(int(row["threads"]) for row in rows if row["answer_s"] <= best * (1 + _CLOSE))


def thread_candidates(cores: int) -> list[int]:
    """All cores, then fewer by halves: decoding saturates the memory long before the cores."""
    found = []
    while cores >= 1:
        found.append(cores)
        cores //= 2
    return found


def _tried(model: Session, context: int, prompt_tokens: int) -> dict[str, Any]:
    new_tokens = max(2, min(_PROBE_TOKENS, context // 4))
    length = max(1, min(_PROBE_PROMPT, prompt_tokens, context - new_tokens))
    # The first answer of a loaded model warms it up.
    answer(model, prompt_ids(model, min(length, 16), 1), 2)
    began, trials = time.monotonic(), 0
    first, gap = float("inf"), float("inf")
    while trials < _LEAST_TRIALS or (trials < _MOST_TRIALS and time.monotonic() - began < _LEAST_S):
        trial = answer(model, prompt_ids(model, length, 2 + trials), new_tokens)
        # Whatever disturbs makes an answer slower, none faster: the best of each tells the counts
        # apart.
        first, gap = min(first, trial.ttft_s), min(gap, statistics.median(trial.gaps_s))
        trials += 1
    return {
        "prefill_tps": length / first,
        "token_ms": gap * 1000,
        "answer_s": first * prompt_tokens / length + _ANSWER * gap,
        "trials": trials,
    }


def _files(artifact: Path) -> list[Path]:
    return (
        regular_files(artifact) if artifact.is_dir() else [artifact] if artifact.is_file() else []
    )
