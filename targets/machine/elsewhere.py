"""Another machine as a Device: what it tells of itself, and how fast the kernels of its agent are
there, timed there."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime

from packager.cores import Cores
from packager.device.identity import Here
from packager.lab.answers import not_ours, whole, wholes
from packager.lab.gauges import Device
from packager.lab.snapshot import Snapshot
from targets.machine.limits import memory
from targets.machine.measure import (
    BUSY,
    RATE_S,
    SMALL_BYTES,
    SMALL_COLUMNS,
    SMALL_ROWS,
    THREADS_S,
    Kernel,
    best_threads,
    headline,
    upper_quartile,
)
from targets.machine.measure_ggml import BATCH, COLUMNS, ROWS
from targets.machine.probe import Elsewhere, Machine, Measurement, stack_bytes

ENGINE = "llama.cpp"
_WEIGHTS = {"q4_k": "q4_K", "q4_0": "q4_0", "q8_0": "q8_0"}
"""Kinds of weights, as measurements and as ggml name them; that of the default recipe first."""
_MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured there: as on this machine, and beside it `read`, the bytes per second of
    reading a plain buffer with as many threads as decode best."""

    measurement: Measurement
    read: float


def facts(snapshot: Snapshot, here: Here, storage_free: int) -> Machine:
    """What a machine has, of its own files."""
    there = snapshot.cores()
    return Machine(
        cpu=here.names[0] if here.names else snapshot.architecture,
        isa=here.isa,
        physical_cores=there.physical,
        usable_cores=there.at_once,
        memory=memory(snapshot.root),
        storage_free=storage_free,
        gpus=(),
        system=snapshot.system,
    )


def identity(here: Here) -> Elsewhere:
    """What a device file knows the machine by. A processor that is called as its architecture
    is would be any."""
    names = dict.fromkeys(name for name in here.names if name != here.isa[0])
    return Elsewhere(tuple(names), here.phone)


def weight_bytes(snapshot: Snapshot) -> int:
    """Bytes of weights that no cache there holds, and its memory does."""
    return stack_bytes(memory(snapshot.root).available, snapshot.root)


def measured(device: Device, weights_bytes: int) -> Generator[str, None, Rates]:
    """Yield what is being measured; return the rates. Half a minute on a small board.

    Raises PackError where the device goes away, has no memory for the weights, or its agent is too
    old.
    """
    started, before = time.monotonic(), device.mark()
    kernels: list[Kernel] = []
    small: list[float] = []
    for kind in _WEIGHTS:
        yield f"measuring {ENGINE} with {kind} weights"
        kernels.append(_kernel(device, kind, weights_bytes, kernels))
        # At moments apart, see targets.machine.measure.
        small.append(_small(device, kernels[0].threads))
    kernels[0] = replace(kernels[0], operation_s=min(small))
    yield "measuring the memory"
    read = _read(device, weights_bytes, kernels[0].threads)
    device.link.ask("close")
    others = min((before.cores_since() or 0.0) / max(device.cores().allowed, 1), 1.0)
    bandwidth, compute = headline(kernels)
    return Rates(
        Measurement(
            engine=ENGINE,
            bandwidth=round(bandwidth),
            compute=round(compute),
            threads=kernels[0].threads,
            threads_batch=kernels[0].threads_batch,
            noisy=others > BUSY,
            other_load=round(others, 3),
            kernels=tuple(kernels),
            failed={},
            seconds=round(time.monotonic() - started, 2),
            measured_at=datetime.now().astimezone().isoformat(timespec="seconds"),
            operation_s=float(f"{kernels[0].operation_s:.3g}"),
        ),
        read,
    )


def _kernel(device: Device, kind: str, weights_bytes: int, known: list[Kernel]) -> Kernel:
    """The rates of one kind of weights; threads as for the first kind."""
    there = device.cores()
    device.link.ask(f"weights {_WEIGHTS[kind]} {weights_bytes} {COLUMNS} {ROWS}")

    def decode(threads: int, seconds: float) -> float:
        return _product(device, 1, threads, seconds, "bytes")

    def prefill(threads: int, seconds: float) -> float:
        return _product(device, BATCH, threads, seconds, "operations")

    if known:
        threads, batch = known[0].threads, known[0].threads_batch
    else:
        threads = best_threads(decode, there.computing, there.sizes())
        batch = best_threads(prefill, there.computing, there.sizes())
    return Kernel(ENGINE, kind, decode(threads, RATE_S), prefill(batch, RATE_S), threads, batch)


def _small(device: Device, threads: int) -> float:
    """Seconds of one small product whose weights lie in a cache."""
    kind = next(iter(_WEIGHTS.values()))
    device.link.ask(f"weights {kind} {SMALL_BYTES} {SMALL_COLUMNS} {SMALL_ROWS}")
    runs = _product(device, 1, threads, THREADS_S, "matrices")
    return 1 / runs


def _product(device: Device, tokens: int, threads: int, seconds: float, unit: str) -> float:
    """Units per second of products with so many tokens, on the strongest cores."""
    with device.pinned(threads):
        return _rate(device, f"product {tokens} {threads} {seconds * 1000:.0f}", unit)


def _read(device: Device, size: int, threads: int) -> float:
    """Bytes per second of reading a buffer."""
    with device.pinned(threads):
        return _rate(device, f"read {size} {threads} {RATE_S * 1000:.0f}", "bytes")


def _rate(device: Device, command: str, unit: str) -> float:
    answer = device.link.ask(command)
    units, times = whole(answer, unit), wholes(answer, "ns", _MOST_RUNS)
    if not units or not times or not all(times):
        raise not_ours("its times are not those of any work")
    return upper_quartile([units / ns * 1e9 for ns in times])


def clusters(snapshot: Snapshot) -> list[dict[str, float | int | None]]:
    """The kinds of cores, the strongest first: how many, their strength (1 for the strongest), and
    their highest clock in MHz, null where it is not told."""
    there: Cores = snapshot.cores()
    return [
        {
            "cores": len(kind.cores),
            "strength": round(kind.strength, 3),
            "mhz": snapshot.highest_mhz(kind.cores[0][0]),
        }
        for kind in there.kinds
    ]
