"""The benchmark of an embedder or a reranker: documents per second by their length, and how long a
query takes.

`measure` is a job for a child process, as packager.measure.benchmark:measure is for text.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from packager.cores import keep_on_strongest
from packager.device.this_machine import describe_machine
from packager.errors import ExitCode, NotHere, PackError
from packager.json_values import JsonObject, at, at_or_none
from packager.measure import noise
from packager.measure.gauges import clock
from packager.measure.gauges.memory import proportional_bytes
from packager.measure.gauges.nvml import process_bytes
from packager.measure.noise import Attempt, calm
from packager.measure.trials import percentile, quartile_spread, words_of
from packager.process import peak_resident_bytes, resident_bytes, resolve
from packager.records import Machine, Measurement
from packager.runtime import Report
from packager.session import RetrievalSession

VERSION = 3
"""Raised when the same artifact would give other figures."""

DOCUMENTS = {128: 8, 512: 8, 2048: 1}
"""Tokens of the documents whose rate is told, and how many are handed over together. Every engine
here computes 512 tokens at once at most and a longer text alone: more make no difference."""
QUERY = 32
"""Tokens of a query with its instruction."""
LONGEST = 2048
"""Tokens of the longest text that is computed, where the context has as many."""
REPEATS = 5
_QUERIES = 20
_LEAST_REPEATS = 2
_PATIENCE_S = 20.0
"""Seconds after which a rate has been measured often enough."""
_SAME = 1e-4


def measure(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    prompt_tokens: int,
    repeats: int,
    seed: int = 1,
    attempts: int = 1,
) -> JsonObject:
    """Measure a model; what cannot run on this machine gives `not_measured`, a sentence, and
    `hint`.

    `settings` are those of the session. `ttft_ms` and `prefill_tps` are of one text of
    `prompt_tokens`, from its tokens to its vector or score; `documents_N_dps` are documents of N
    tokens per second, handed over together as DOCUMENTS says; `query_ms` is one text of 32 tokens.
    Every text is new. Raises PackError (budget) for a model that gives two results for one text.
    """
    make = resolve(session)  # which imports the engine: no part of loading a model
    processors = keep_on_strongest(at_or_none(settings, "threads", int))
    loading = time.perf_counter()
    try:
        model: RetrievalSession = make(artifact, settings)
    except NotHere as error:
        return {"not_measured": error.message, "hint": error.hint}
    load_s = time.perf_counter() - loading
    report.note(f"loaded in {load_s:.1f} s")
    run = _Run(report, model, settings, seed)
    try:
        first = run.result(check := run.text(min(QUERY, run.context)))
        parts: dict[str, list[Attempt[Any]]] = {
            "texts": calm(lambda: run.texts(prompt_tokens, repeats), attempts, report.note),
            "documents": calm(lambda: run.documents(repeats), min(2, attempts), report.note),
            "queries": calm(run.queries, min(2, attempts), report.note),
        }
        again = run.result(check)
        # What stands between the layers grows with a text: the longest one shows it.
        if run.context < LONGEST:
            run.result(run.text(run.context))
        megahertz = clock.megahertz()
        steady, proportional = resident_bytes(), proportional_bytes()
        on_gpu = process_bytes()
    finally:
        model.close()
    if max(abs(number - other) for number, other in zip(first, again, strict=True)) > _SAME:
        raise PackError(
            "The model gave two different results for one text.",
            "The engine or the artifact is broken.",
            ExitCode.BUDGET,
        )
    believed = noise.verdict(parts)
    figures = {name: value for part in parts.values() for name, value in part[0].figures.items()}
    taken: JsonObject = Measurement(
        task=str(settings["task"]),
        prompt_tokens=prompt_tokens,
        repeats=repeats,
        **figures,
        load_s=load_s,
        peak_memory_bytes=max(peak_resident_bytes(), steady),
        steady_memory_bytes=steady,
        proportional_memory_bytes=proportional,
        gpu_memory_bytes=on_gpu,
        deterministic=True,
        runs_on=getattr(model, "runs_on", "cpu"),
        threads=model.threads,
        processors=None if processors is None else tuple(processors),
        cpu_mhz=megahertz,
        machine=Machine.from_json(describe_machine()),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        noisy=believed.noisy,
        noisy_because=believed.because,
        other_cpu_cores=believed.others,
        attempts=believed.attempts,
        left_out=tuple(run.left_out),
    ).to_json()
    return taken


class _Run:
    """The parts of a measurement of one loaded model."""

    def __init__(
        self, report: Report, model: RetrievalSession, settings: JsonObject, seed: int
    ) -> None:
        self._report, self._model, self._seed = report, model, seed
        self.context = at(settings, "context", int)
        self._embeds = settings["task"] == "embed"
        self.left_out: list[str] = []

    def text(self, count: int) -> list[int]:
        """Tokens of a text that the engine has not seen in this measurement."""
        self._seed += 1
        return words_of(self._model.plain, count, self._seed - 1)

    def result(self, ids: list[int]) -> list[float]:
        """The numbers of a vector, or a score."""
        if self._embeds:
            return [float(number) for number in self._model.embed([ids])[0]]
        return self._model.score([ids])

    def texts(self, tokens: int, repeats: int) -> tuple[dict[str, float], float]:
        """One text of the workload's length at a time."""
        seconds = self._timed([[self.text(tokens)] for _ in range(repeats)])
        median = statistics.median(seconds)
        spread = quartile_spread(seconds)
        figures = {
            "ttft_ms": 1000 * median,
            "ttft_ms_p95": 1000 * percentile(seconds, 0.95),
            "ttft_ms_p99": 1000 * percentile(seconds, 0.99),
            "prefill_tps": tokens / median,
            "ttft_spread": spread,
        }
        return figures, spread

    def documents(self, repeats: int) -> tuple[dict[str, float], float]:
        """Documents of each length, as many at a time as DOCUMENTS says."""
        figures: dict[str, float] = {}
        spread = 0.0
        for tokens, together in DOCUMENTS.items():
            if tokens > self.context:
                text = f"documents of {tokens} tokens: the context has {self.context}"
                self.left_out += [text] if text not in self.left_out else []
                continue
            batches = [[self.text(tokens) for _ in range(together)] for _ in range(repeats)]
            seconds = self._timed(batches)
            rate = together / statistics.median(seconds)
            figures[f"documents_{tokens}_dps"] = rate
            spread = max(spread, quartile_spread(seconds))
            self._report.note(f"documents of {tokens} tokens: {rate:.3g} a second")
        return figures, spread

    def queries(self) -> tuple[dict[str, float], float]:
        """Single short texts, as a search asks."""
        tokens = min(QUERY, self.context)
        seconds = self._timed([[self.text(tokens)] for _ in range(_QUERIES)])
        figures = {
            "query_ms": 1000 * statistics.median(seconds),
            "query_ms_p95": 1000 * percentile(seconds, 0.95),
        }
        return figures, quartile_spread(seconds)

    def _timed(self, batches: list[list[list[int]]]) -> list[float]:
        """Seconds of each batch, sorted; fewer batches where they take long."""
        work: Callable[[list[list[int]]], Any] = (
            self._model.embed if self._embeds else self._model.score
        )
        seconds: list[float] = []
        began = time.monotonic()
        for number, batch in enumerate(batches):
            if number >= _LEAST_REPEATS and time.monotonic() - began > _PATIENCE_S:
                break
            start = time.perf_counter()
            work(batch)
            seconds.append(time.perf_counter() - start)
            self._report.progress(number + 1, len(batches), "texts")
        return sorted(seconds)
