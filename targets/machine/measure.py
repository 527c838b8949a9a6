"""Effective bandwidth and compute of this processor, measured with the engines' own kernels. A job
of a child process.

Decoding is a product of every weight matrix with one token: its bytes per second are the bandwidth.
Prefill is the same with many tokens: its operations per second are the compute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from packager.cores import cores as machine
from packager.cores import fewest
from packager.json_values import JsonObject
from packager.runtime import Report

_WARM_S = 0.05
THREADS_S, RATE_S = 0.15, 0.35
"""Seconds of a rate that is compared, and of one that is kept."""
SMALL_COLUMNS, SMALL_ROWS, SMALL_BYTES = 256, 256, 4 << 20
"""A product of a few microseconds, and a stack of them that lies in a processor's cache: memory's
rate does not enter."""
_CLOSE = 0.05
"""A thread more must bring more than this fraction, or fewer are chosen: the others stay free for
the person."""
BUSY = 0.10
"""Share of the processors' time that other programs may take before a measurement counts as
noisy."""

SHARES = {"llama.cpp": (0.87, 0.80), "openvino": (1.02, 0.41), "numpy": (0.87, 0.80)}
"""What llama.cpp reaches over a whole model with Q4_K weights, as parts of the rates that an
engine's large products have alone: bandwidth while decoding, compute in a prompt. A device's rates
are those of whole models. Source: docs/measurements/forecast.md; that of numpy, which stands in
where no engine is installed, is an assumption."""

_ORDER = (
    ("llama.cpp", "q4_k"),
    ("openvino", "int4_sym_g128"),
    ("llama.cpp", "q4_0"),
    ("llama.cpp", "q8_0"),
    ("numpy", "float32"),
)
"""Engines and kinds of weights, those of the default recipes first."""


Rate = Callable[[int, float], float]
"""From threads and seconds to units per second."""


class Work(Protocol):
    """Weights of one kind in one engine's memory layout."""

    def decode(self, threads: int) -> float:
        """One product with a single token; returns bytes read."""

    def prefill(self, threads: int) -> float:
        """One product with a batch of tokens; returns operations done."""

    def close(self) -> None:
        """Free the memory."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Rates of one engine on one kind of weights: bytes per second, operations per second, and the
    threads that reach them.

    `operation_s` is what the smallest operation of a graph takes, in seconds: threads that start
    and wait for one another, and a product of 256 x 256 weights out of the cache. 0 where it was
    not measured.
    """

    engine: str
    weights: str
    bandwidth: float
    compute: float
    threads: int
    threads_batch: int
    operation_s: float = 0.0


def measure_job(
    report: Report, *, engines: list[str], cores: int, bytes_total: int, budget_s: float
) -> JsonObject:
    """Measure with the named engines ("llama.cpp", "openvino", "numpy") on up to `cores` threads,
    with `bytes_total` of weights.

    After `budget_s` seconds no further kind of weights is begun; the kinds that matter most come
    first. Numpy stands in where no engine could be driven. Returns `kernels` (of the engines that
    could be driven), `failed` (engine -> why), `other_load` (0 to 1) and `noisy`.
    """
    kernels: list[Kernel] = []
    small: list[float] = []
    failed: dict[str, str] = {}
    started, before, own = time.monotonic(), _busy_seconds(), _own_seconds()
    for engine, weights in (pair for pair in _ORDER if pair[0] in engines):
        late = time.monotonic() - started > budget_s
        if engine in failed or (kernels and (late or engine == "numpy")):
            continue
        report.note(f"Measuring {engine} with {weights} weights")
        try:
            kernels.append(_kernel(engine, weights, cores, bytes_total, kernels))
            # A virtual machine's processors lose their pace for up to some seconds: the small
            # operation is timed at moments apart.
            small += [
                kernels[0].operation_s,
                _operation_s(kernels[0].engine, kernels[0].weights, kernels[0].threads),
            ]
        except (ImportError, OSError, AttributeError, RuntimeError, MemoryError) as error:
            # A library of another build: its rates are not to be had, those of the next engine are.
            failed[engine] = f"{type(error).__name__}: {error}"
    if kernels:
        kernels[0] = replace(kernels[0], operation_s=min(small, default=kernels[0].operation_s))
    seconds = time.monotonic() - started
    others = (
        max(0.0, _busy_seconds() - before - (_own_seconds() - own))
        / max(seconds, 1e-9)
        / (os.cpu_count() or 1)
    )
    return {
        "kernels": [asdict(kernel) for kernel in kernels],
        "failed": failed,
        "other_load": round(min(others, 1.0), 3),
        "noisy": others > BUSY,
    }


def _kernel(engine: str, weights: str, cores: int, bytes_total: int, known: list[Kernel]) -> Kernel:
    """The rates of one engine on one kind of weights."""
    work = _work(engine, weights, bytes_total)

    def decode(threads: int, seconds: float) -> float:
        return _rate(work.decode, threads, seconds)

    def prefill(threads: int, seconds: float) -> float:
        return _rate(work.prefill, threads, seconds)

    try:
        if known:
            # What one kind of weights likes best holds for the others: the same memory and the same
            # cores.
            threads, batch = known[0].threads, known[0].threads_batch
        elif engine == "openvino":
            # It compiles anew for every count, which takes longer than measuring does; all cores
            # are its own choice.
            threads = batch = cores
        else:
            sizes = machine().sizes()
            threads = best_threads(decode, cores, sizes)
            batch = best_threads(prefill, cores, sizes)
        small = 0.0 if known else _operation_s(engine, weights, threads)
        bandwidth, compute = decode(threads, RATE_S), prefill(batch, RATE_S)
        return Kernel(engine, weights, bandwidth, compute, threads, batch, small)
    finally:
        work.close()


def _operation_s(engine: str, weights: str, threads: int) -> float:
    """Seconds of a small product whose weights lie in the cache; 0 for an engine whose small
    products are not measured."""
    if engine != "llama.cpp":
        return 0.0
    from targets.machine.measure_ggml import Ggml, GgmlWork, library_folder

    work = GgmlWork(
        Ggml(library_folder() or Path()), weights, SMALL_BYTES, SMALL_COLUMNS, SMALL_ROWS
    )
    try:
        return work.bytes / work.count / _rate(work.decode, threads, THREADS_S)
    finally:
        work.close()


def _work(engine: str, weights: str, bytes_total: int) -> Work:
    """The weights of one kind, set up."""
    # The engines' modules load here and not at the top: each needs its engine.
    if engine == "llama.cpp":
        from targets.machine.measure_ggml import Ggml, GgmlWork, library_folder

        return GgmlWork(Ggml(library_folder() or Path()), weights, bytes_total)
    if engine == "openvino":
        from targets.machine.measure_openvino import OpenVinoWork

        return OpenVinoWork(bytes_total)
    from targets.machine.measure_numpy import NumpyWork

    return NumpyWork(bytes_total)


def thread_candidates(cores: int, sizes: Sequence[int] = ()) -> list[int]:
    """Counts worth trying, ascending: one, the powers of two, all, and the `sizes` at which a kind
    of cores ends."""
    return sorted({1, cores, *(count for count in (2, 4, 8, 16, 32, 64, *sizes) if count < cores)})


def best_threads(rate: Rate, cores: int, sizes: Sequence[int]) -> int:
    """The fewest threads, of up to `cores`, whose rate comes near the best; the search ends where
    more threads make it slower. For `sizes` see `thread_candidates`."""
    rates: dict[int, float] = {}
    # Twice, as a disturbed moment would choose for all the others.
    for _ in range(2):
        for count in thread_candidates(cores, sizes):
            rates[count] = max(rates.get(count, 0.0), rate(count, THREADS_S))
            if rates[count] < max(rates.values()) * (1 - 2 * _CLOSE):
                break
    return fewest({count: 1 / rate for count, rate in rates.items()}, _CLOSE)


def _rate(work: Callable[[int], float], threads: int, seconds: float) -> float:
    """Units per second of repeated runs: the upper quartile, since every disturbance makes a run
    slower and none faster."""
    until = time.perf_counter() + _WARM_S
    work(threads)
    while time.perf_counter() < until:
        work(threads)
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        done = work(threads)
        rates.append(done / (time.perf_counter() - started))
    return upper_quartile(rates)


def upper_quartile(rates: Sequence[float]) -> float:
    """Of the rates of repeated runs."""
    return sorted(rates)[len(rates) * 3 // 4]


def headline(kernels: list[Kernel]) -> tuple[float, float]:
    """(bandwidth, compute) of whole models with the weights of the engine's default recipe, which
    is measured first."""
    bandwidth, compute = SHARES[kernels[0].engine]
    return kernels[0].bandwidth * bandwidth, kernels[0].compute * compute


def _busy_seconds() -> float:
    """Processor time spent by everybody on this machine since it started, stolen time of a virtual
    machine included."""
    import psutil

    times = psutil.cpu_times()._asdict()
    guests = ("guest", "guest_nice")  # Linux counts them in user and nice already.
    return float(
        sum(value for name, value in times.items() if name not in ("idle", "iowait", *guests))
    )


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system
