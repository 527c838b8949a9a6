"""This machine as a Device: what it has, and how fast the engines' kernels are on it."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import msgspec

from packager.cores import cores, machine_cores
from packager.device.target import Device, Target
from packager.errors import PackError
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonObject, at
from packager.limits import SETTINGS_BYTES
from packager.measure.noise import allowed_attempts
from packager.need.workload import workload_for
from packager.paths import cache_dir, made_cache_dir
from packager.process import JobResult, Note, Resident, run_job
from packager.units import human_threads
from targets.gguf.library import SPIN
from targets.machine.gpus import Gpu, gpus
from targets.machine.isa import processor
from targets.machine.limits import ROOT, Memory, memory
from targets.machine.measure import SHARES, Kernel, headline

_BUDGET_S = 5.0
_RATES = "whole models, operations in the cache"
"""What the kept rates are; those of another definition are measured again."""
_ILLEGAL = (
    "the installed build holds an instruction that this processor does not know; install it "
    "again on this machine"
)
_CACHES = 4
"""Weights as large as this many last-level caches: fewer would be read from the cache, not from
memory."""
_LEAST, _MOST = 128 << 20, 512 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of this machine that need no measuring. Bytes."""

    cpu: str
    isa: tuple[str, ...]
    physical_cores: int
    usable_cores: int
    memory: Memory
    storage_free: int
    gpus: tuple[Gpu, ...]
    system: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """Effective rates: bytes per second while decoding, operations per second in prefill, and who
    measured them.

    `noisy` says that other programs took more than a tenth of the processors (`other_load`, 0 to 1)
    meanwhile.
    """

    engine: str
    bandwidth: float
    compute: float
    threads: int
    threads_batch: int
    noisy: bool
    other_load: float
    kernels: tuple[Kernel, ...]
    failed: dict[str, str]
    seconds: float
    measured_at: str
    operation_s: float = 0.0
    died: dict[str, str] = field(default_factory=dict)
    """Engines that this processor ended with an illegal instruction, and why that is."""

    @classmethod
    def from_dict(cls, data: JsonObject) -> Measurement:
        """The inverse of `dataclasses.asdict`. Raises ValueError for anything else."""
        return msgspec.convert(data, cls)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is told of a machine that was reached: what it calls itself, and whether it is a
    phone."""

    names: tuple[str, ...]
    phone: bool = False


def look(root: Path = ROOT) -> Machine:
    """What this machine has. Takes a few milliseconds and measures nothing."""
    cpu, isa = processor(root)
    return Machine(
        cpu=cpu,
        isa=isa,
        physical_cores=machine_cores(root),
        usable_cores=cores(root).at_once,
        memory=memory(root),
        storage_free=storage_free(cache_dir()),
        gpus=gpus(),
        system=f"{platform.system()} {platform.release()}",
    )


def storage_free(folder: Path) -> int:
    """Bytes free where `folder` is or would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def measure(
    machine: Machine, environment: Callable[[list[str]], Mapping[str, str]]
) -> Generator[Note | Resident, None, Measurement]:
    """Measure, again while other programs disturb it (QWEN_PACK_ATTEMPTS times at most); return the
    least disturbed Measurement. `environment` gives the variables that start engines as they were
    found to work here, see targets.registry.environment_of.

    Yields notes, and what the child has resident several times a second, so that a caller can close
    the generator soon. Raises PackError when the child dies (no memory left).
    """
    tries = allowed_attempts()
    best = yield from _measure_once(machine, environment)
    for attempt in range(2, tries + 1):
        if not best.noisy:
            break
        yield Note(
            f"disturbed: other programs took {best.other_load:.0%} of the processors; measuring "
            f"again ({attempt} of {tries})"
        )
        again = yield from _measure_once(machine, environment)
        best = min(best, again, key=lambda one: one.other_load)
    return best


def _measure_once(
    machine: Machine, environment: Callable[[list[str]], Mapping[str, str]]
) -> Generator[Note | Resident, None, Measurement]:
    """One measurement in a child process, under ten seconds."""
    engines = installed_engines()
    died: dict[str, str] = {}
    while True:
        try:
            return replace((yield from _measure_with(machine, engines, environment)), died=died)
        except PackError as error:
            # A kernel of another build may crash; what is left of the engines still tells
            # something.
            if len(engines) == 1:
                raise
            if re.search(r"SIGILL|illegal instruction", error.message, re.IGNORECASE):
                died[engines[0]] = _ILLEGAL
            yield Note(f"{engines[0]} cannot be measured here: {error.message}")
            engines = engines[1:]


def _measure_with(
    machine: Machine,
    engines: list[str],
    environment: Callable[[list[str]], Mapping[str, str]],
) -> Generator[Note | Resident, None, Measurement]:
    arguments: JsonObject = {
        "engines": engines,
        "cores": min(machine.usable_cores, cores().computing),
        "bytes_total": stack_bytes(machine.memory.available),
        "budget_s": _BUDGET_S,
    }
    # As the sessions run: threads that wait give way to other programs soon, but not after every
    # operation.
    job = run_job(
        "targets.machine.measure:measure_job",
        arguments,
        made_cache_dir() / "probe.log",
        {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPIN, **environment(engines)},
        watch=True,
    )
    try:
        while True:
            message = next(job)
            if isinstance(message, Note | Resident):
                yield message
    except StopIteration as end:
        return _measurement(end.value)
    finally:
        job.close()


def _measurement(result: JobResult) -> Measurement:
    kernels = msgspec.convert(result.value["kernels"], tuple[Kernel, ...])
    engine = kernels[0].engine
    bandwidth, compute = headline([kernel for kernel in kernels if kernel.engine == engine])
    return Measurement(
        engine=engine,
        bandwidth=round(bandwidth),
        compute=round(compute),
        threads=kernels[0].threads,
        threads_batch=kernels[0].threads_batch,
        noisy=at(result.value, "noisy", bool),
        other_load=at(result.value, "other_load", float),
        kernels=kernels,
        failed=msgspec.convert(result.value["failed"], dict[str, str]),
        seconds=round(result.seconds, 2),
        measured_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        operation_s=float(f"{kernels[0].operation_s:.3g}"),
    )


def installed_engines() -> list[str]:
    """Engines whose kernels can be driven here; numpy is always there and last. Imports none."""
    from importlib.util import find_spec

    from targets.machine.measure_ggml import library_folder

    engines = ["llama.cpp"] if library_folder() else []
    return [*engines, *(["openvino"] if find_spec("openvino") else []), "numpy"]


def stack_bytes(available: int, root: Path = ROOT) -> int:
    """How much weight to measure with: several times the last-level cache, never more than a
    quarter of free memory."""
    caches = (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    largest = max((_cache_bytes(path) for path in caches), default=0)
    return max(16 << 20, min(max(_LEAST, _CACHES * largest), _MOST, available // 4))


def _cache_bytes(path: Path) -> int:
    """`32768K` -> bytes; 0 for anything else."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return 0
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
    return int(text[:-1]) * scale if text[:-1].isdecimal() else 0


def keep(machine: Machine, measurement: Measurement) -> Path | None:
    """Write the measurement to the cache; None (and nothing written) where a quiet one would give
    way to a noisy one."""
    old = kept(machine)
    if old is not None and measurement.noisy and not old.noisy:
        return None
    from packager.files import write_json

    made_cache_dir()
    path = _kept_path()
    write_json(path, {"machine": _key(machine), "measurement": asdict(measurement)})
    return path


def kept(machine: Machine) -> Measurement | None:
    """The measurement in the cache, if it was taken on this machine with the engines it has now."""
    try:
        data = parse_json(bounded_bytes(_kept_path(), SETTINGS_BYTES), str(_kept_path()))
        return (
            Measurement.from_dict(data["measurement"]) if data["machine"] == _key(machine) else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PackError):
        return None


def _kept_path() -> Path:
    return cache_dir() / "probe.json"


def _key(machine: Machine) -> JsonObject:
    """What a measurement depends on."""
    return {
        "rates": _RATES,
        "cpu": machine.cpu,
        "isa": list(machine.isa),
        "cores": machine.usable_cores,
        "engines": installed_engines(),
    }


def cannot_run(machine: Machine, measurement: Measurement) -> dict[str, str]:
    """Runtime -> why it does not run on this processor: by what its wheels take, or as it ended
    when it was measured.

    numpy's wheels for x86-64, which every runtime's converter and session take, and OpenVINO are
    built for SSE4.2 (x86-64-v2). Source: numpy 2.4's build options (baseline X86_V2), OpenVINO's
    system requirements; docs/systems.md has what was seen.
    """
    # Other systems than Linux do not tell all extensions; a processor with AVX has SSE4.2 in any
    # case.
    flags_are_known = machine.system.startswith("Linux") and machine.isa[0] == "x86_64"
    if flags_are_known and not {"sse4_2", "avx", "avx2"} & set(machine.isa):
        return dict.fromkeys(
            ("openvino", "llama.cpp", "onnxruntime"),
            "its Python packages need SSE4.2, which this processor lacks",
        )
    return dict(measurement.died)


def as_target(
    machine: Machine, measurement: Measurement, name: str, there: Elsewhere | None = None
) -> Target:
    """This machine, or the one that was reached, as a target on its processor, every number with
    its source."""
    date = measurement.measured_at[:10]
    here = (
        f"measured on the device, {date}, by qwen-pack probe --on"
        if there
        else f"measured on this machine, {date}, by qwen-pack probe"
    )
    taken = min(max(0, machine.memory.total - machine.memory.available), machine.memory.total - 1)
    how = f"{here}: {measurement.engine}, {measurement.kernels[0].weights} weights"
    decoding, prompts = map(human_threads, (measurement.threads, measurement.threads_batch))
    share = SHARES[measurement.engine]
    noise = (
        f"; other programs took {measurement.other_load:.0%} of the processors"
        if measurement.noisy
        else ""
    )
    sources = {
        "memory_bytes": f"{here}: the limit that the {machine.memory.limited_by} sets",
        "reserve_bytes": f"{here}: what other programs held at that time",
        "cores": f"{here}: processors this process may use",
        "bandwidth": (
            f"{how}, {decoding}{noise}; x {share[0]:g}, the share that a whole model reaches"
        ),
        "compute": (
            f"{how}, {prompts}{noise}; x {share[1]:g}, the share that a whole model reaches"
        ),
        "operation_seconds": (
            f"{how}, {decoding}{noise}: products of 256 x 256 weights in the cache"
        ),
        "storage_bytes": f"{here}: free where {'models are sent' if there else 'the cache is'}",
        "gpu_memory_bytes": f"{here}: NVML",
        "disturbed": f"{here}: processors that other programs took meanwhile",
    }
    first = machine.gpus[0] if machine.gpus else None
    absent = [] if first else ["gpu_memory_bytes"]
    absent += [] if measurement.operation_s else ["operation_seconds"]
    absent += [] if measurement.noisy else ["disturbed"]
    device = Device(
        memory_bytes=machine.memory.total,
        reserve_bytes=taken,
        process_cap_bytes=None,
        isa=" ".join(machine.isa),
        cores=machine.usable_cores,
        bandwidth=measurement.bandwidth,
        compute=measurement.compute,
        storage_bytes=machine.storage_free,
        # A disturbed measurement says no more than one of a similar machine would.
        confidence="same-class" if measurement.noisy else "measured",
        gpu_memory_bytes=first.memory_bytes if first else None,
        operation_seconds=measurement.operation_s or None,
        sources={key: text for key, text in sources.items() if key not in absent},
        cpu=machine.cpu,
        gpu=first.name if first else "",
        known_by=there.names if there else (machine.cpu,) * bool(machine.cpu),
        cannot_run=cannot_run(machine, measurement),
        disturbed=round(measurement.other_load, 2) if measurement.noisy else None,
    )
    x86 = machine.isa[0] == "x86_64"
    kinds = {"x86_64": "laptop", "riscv64": "riscv"}
    kind = kinds.get(machine.isa[0], "single-board")
    title = " / ".join(there.names or ("A device",)) if there else f"This machine: {machine.cpu}"
    return Target(
        name=name,
        summary=f"{title}, {machine.usable_cores} processors",
        kind="phone" if there and there.phone else kind,
        device=device,
        runtimes=("openvino", "llama.cpp", "onnxruntime") if x86 else ("llama.cpp",),
        recipes=("openvino:int4_sym_g128", "gguf:Q4_K_M") if x86 else ("gguf:Q4_0", "gguf:Q4_K_M"),
        workload=workload_for("chat"),
        path="",
    )
