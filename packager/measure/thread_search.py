"""How many threads a model runs fastest with here, found by measurement; a job for a child process
of its own.

The search loads the model as often as it must, so its memory is not the model's: it has a process
to itself. Its first load comes from a page cache that has forgotten the files, which is the cold
load of the measurement.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packager.cores import fewest
from packager.json_values import JsonObject, at
from packager.measure.gauges.machine import Gauges, gauges_of
from packager.measure.noise import BUSY_CORES
from packager.measure.trials import answer, prompt_ids
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session
from packager.units import human_threads

# An answer of this length behind the workload's prompt is what the candidates are compared by.
_ANSWER = 128
_PROBE_PROMPT, _PROBE_TOKENS = 128, 12
# A count is tried so often, and a quick model so long: one answer of a few milliseconds takes
# chance for speed.
_LEAST_TRIALS, _MOST_TRIALS, _LEAST_S = 2, 20, 0.1
_BUDGET_S = 25.0
# Within this the fewer threads win, see packager.cores.fewest; what is slower by more than that
# ends its direction.
_CLOSE = 0.02
_CLEARLY = 1.1
# A warm-up of two tokens that takes this long is that of a slow model, or of threads that wait for
# one another.
_SLOW_S, _SLOW_PROMPT = 2.0, 16
_COLD = 0.01


def search(
    report: Report, *, session: str, artifact: str, settings: JsonObject, prompt_tokens: int
) -> JsonObject:
    """Try thread counts from the big cores downwards, then upwards; see `_chosen` for which wins.

    Returns `threads`, `processors` (those that the process was kept on, None where it was on all),
    `candidates[]` (threads, processors, prefill_tps, token_ms, answer_s, trials), `load_cold` and
    `other_cpu_cores`. A session that can `use_threads(n)` is loaded once, others once for every
    candidate. A direction ends when it is clearly slower; a spent budget ends the search only
    behind a candidate that is not the best: the first one may be the worst of all.
    """
    make = resolve(session)  # which imports the engine: no part of loading a model
    gauges = gauges_of(make, settings)
    mark = gauges.mark()
    machine = gauges.cores()
    cached = gauges.forget(Path(artifact))
    tries = _Tries(make, artifact, settings, prompt_tokens, report, gauges)
    try:
        for direction in (machine.fewer(), machine.more()):
            for threads in direction:
                took = tries.add(threads).figures.answer_s
                best = min(row.figures.answer_s for row in tries.rows)
                if took > best * _CLEARLY or (took > best and tries.spent() > _BUDGET_S):
                    break
            if tries.spent() > _BUDGET_S:
                break
    finally:
        tries.close()
    others = mark.cores_since()
    threads = _chosen(tries.rows)
    rows = [row.to_json() for row in tries.rows]
    return {
        "threads": threads,
        "processors": next(row["processors"] for row in rows if row["threads"] == threads),
        "candidates": rows,
        "other_cpu_cores": others,
        "noisy": (others or 0.0) > BUSY_CORES,
        "load_cold": {
            **tries.load_cold,
            "cached_share": cached,
            "cold": cached is not None and cached < _COLD,
        },
    }


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the answers of one count took: tokens per second, milliseconds, seconds of an answer of
    the workload's prompt, and how many were timed."""

    prefill_tps: float
    token_ms: float
    answer_s: float
    trials: int


@dataclass(frozen=True, slots=True)
class _Row:
    """One count of threads, and the processors that it was kept on."""

    threads: int
    processors: tuple[int, ...] | None
    figures: _Figures

    def to_json(self) -> JsonObject:
        """One of `candidates[]`."""
        kept = None if self.processors is None else list(self.processors)
        return {"threads": self.threads, "processors": kept, **asdict(self.figures)}


class _Tries:
    """One model, tried with several numbers of threads; `rows` has what came out."""

    def __init__(
        self,
        make: Any,
        artifact: str,
        settings: JsonObject,
        prompt_tokens: int,
        report: Report,
        gauges: Gauges,
    ) -> None:
        self._make, self._artifact, self._settings = make, artifact, settings
        self._prompt_tokens, self._report, self._gauges = prompt_tokens, report, gauges
        self._began = time.monotonic()
        self._model: Session | None = None
        self.rows: list[_Row] = []
        self.load_cold: JsonObject = {}

    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def add(self, threads: int) -> _Row:
        """Try one number of threads, on the strongest cores."""
        with self._gauges.pinned(threads) as processors:
            model = self._with(threads)
            figures = _tried(model, at(self._settings, "context", int), self._prompt_tokens)
        row = _Row(threads, processors, figures)
        self.rows.append(row)
        self._report.note(f"{human_threads(threads)}: {figures.token_ms:.1f} ms per token")
        return row

    def _with(self, threads: int) -> Session:
        if self._model is not None and hasattr(self._model, "use_threads"):
            self._model.use_threads(threads)
            return self._model
        self.close()
        loading = time.perf_counter()
        model: Session = self._make(self._artifact, {**self._settings, "threads": threads})
        self._model = model
        if not self.load_cold:
            took = time.perf_counter() - loading
            self.load_cold = {"seconds": getattr(model, "load_s", took)}
        return model

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
            self._model = None


def _chosen(rows: list[_Row]) -> int:
    """The fewest threads among those that answer nearly as fast as the best; see
    packager.cores.fewest."""
    return fewest({row.threads: row.figures.answer_s for row in rows}, _CLOSE)


def _tried(model: Session, context: int, prompt_tokens: int) -> _Figures:
    new_tokens = max(2, min(_PROBE_TOKENS, context // 4))
    length = max(1, min(_PROBE_PROMPT, prompt_tokens, context - new_tokens))
    # The first answer of a loaded model warms it up, and tells how long the others will take.
    warming = time.monotonic()
    answer(model, prompt_ids(model, min(length, 16), 1), 2)
    slow = time.monotonic() - warming > _SLOW_S
    if slow:
        # Threads that wait for small cores are a hundred times slower, which a few tokens show.
        new_tokens, length = 2, min(length, _SLOW_PROMPT)
    began, trials = time.monotonic(), 0
    first, gap = float("inf"), float("inf")
    least = 1 if slow else _LEAST_TRIALS
    while trials < least or (trials < _MOST_TRIALS and time.monotonic() - began < _LEAST_S):
        trial = answer(model, prompt_ids(model, length, 2 + trials), new_tokens)
        # Whatever disturbs makes an answer slower, none faster: the best of each tells the counts
        # apart.
        first, gap = min(first, trial.ttft_s), min(gap, statistics.median(trial.gaps_s))
        trials += 1
    return _Figures(
        prefill_tps=length / first,
        token_ms=gap * 1000,
        answer_s=first * prompt_tokens / length + _ANSWER * gap,
        trials=trials,
    )
