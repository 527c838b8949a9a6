"""Rules about what the device has: bytes in its memories and files, its processor and what it runs
models on."""

from __future__ import annotations

from collections.abc import Iterator

from packager.device.target import Device
from packager.need.workload import Workload
from packager.predict.memory import Footprint
from packager.predict.offload import Split
from packager.recipe import Recipe
from packager.runtime import AnswersSeveral, Runtime
from packager.select.candidate import Reason
from packager.units import human_bytes

_PROVIDERS = {
    "cpu": "a processor",
    "cuda": "an NVIDIA GPU",
    "dml": "a GPU under Windows",
    "webgpu": "a GPU",
}


def of_size(
    footprint: Footprint,
    artifact: int,
    device: Device,
    workload: Workload,
    available: int,
    split: Split | None = None,
) -> Iterator[Reason]:
    """Rules about bytes: memory, storage, the artifact's own limit. `split` where a GPU with memory
    of its own takes the model."""
    if split is not None and device.host_bandwidth is not None:
        yield from memories(split, device, workload, available)
    else:
        yield from memory(footprint, workload, available)
    yield from storage(artifact, device)
    yield from artifact_size(artifact, workload)


def unit(recipe: Recipe, device: Device) -> Iterator[Reason]:
    """A recipe that is built for an execution provider needs a device whose models run on what that
    drives."""
    if device.runs_on == "npu" and "asym" in recipe.weights:
        wanted = "weights quantized symmetrically, which is what the driver of an NPU compiles"
        yield Reason("device", wanted, f"zero points ({recipe.id})")
    provider = recipe.provider
    if provider is not None and provider not in providers(device):
        name = {"gpu": device.gpu, "npu": device.npu}.get(device.runs_on, device.cpu)
        has = (
            "a device that runs models on its "
            f"{device.runs_on.upper()}{f' ({name})' if name else ''}"
        )
        yield Reason("device", _PROVIDERS.get(provider, provider), has)


def processor(runtime: str, device: Device) -> Iterator[Reason]:
    """The engine must run on the processor: wheels take instructions that an older one has not."""
    if runtime in device.cannot_run:
        yield Reason(
            "processor",
            f"a processor that {runtime} runs on",
            device.cannot_run[runtime].rstrip("."),
        )


def at_once(runtime: Runtime, workload: Workload) -> Iterator[Reason]:
    """Several sequences at once take a runtime whose packages answer them so."""
    if workload.parallel > 1 and not (
        isinstance(runtime, AnswersSeveral) and runtime.answers_at_once
    ):
        wanted = f"{workload.parallel} sequences answered at once"
        yield Reason("parallel", wanted, f"packages of {runtime.name}, which answer one by one")


def providers(device: Device) -> tuple[str, ...]:
    """The execution providers that the device's file allows, best first."""
    if device.runs_on == "cpu":
        return ("cpu",)
    if device.runs_on == "npu":
        return ()
    nvidia = any(word in device.gpu for word in ("NVIDIA", "CUDA"))
    windows = "x86_64" in device.isa
    return (*(("cuda",) if nvidia else ()), *(("dml",) if windows else ()), "webgpu")


def room(workload: Workload, available: int, gpus: int = 1) -> int:
    """Bytes that a model may take where it runs: what there is, or the limit that was asked for, of
    which each of several GPUs has its share."""
    return (
        available
        if workload.max_memory_bytes is None
        else min(available, workload.max_memory_bytes // gpus)
    )


def memory(footprint: Footprint, workload: Workload, available: int) -> Iterator[Reason]:
    """The peak, while loading or answering a full context, must fit into what one model may
    take."""
    limit = room(workload, available)
    if footprint.peak > limit:
        yield Reason(
            "memory", human_bytes(footprint.peak), human_bytes(limit), footprint.peak, limit
        )


def memories(split: Split, device: Device, workload: Workload, available: int) -> Iterator[Reason]:
    """What lies on the GPU must fit there, and what stays behind into the system's memory: both
    peaks, against both."""
    limit, beside = room(workload, available, device.gpus), device.host_available_bytes
    if split.fullest.peak > limit:
        # Not even in parts: together they would have to hold it.
        on = "the GPU" if device.gpus == 1 else f"each of {device.gpus} GPUs"
        has = f"{human_bytes(limit)} on {on} and {human_bytes(beside)} of system memory"
        limit *= device.gpus
        yield Reason(
            "memory",
            human_bytes(split.device.peak + split.host.peak),
            has,
            split.device.peak + split.host.peak,
            limit + beside,
        )
    elif split.host.peak > beside:
        yield Reason(
            "memory",
            f"{human_bytes(split.host.peak)} of system memory",
            human_bytes(beside),
            split.host.peak,
            beside,
        )


def storage(artifact: int, device: Device) -> Iterator[Reason]:
    """The model files must fit onto the device."""
    if device.storage_bytes is not None and artifact > device.storage_bytes:
        yield Reason(
            "storage",
            human_bytes(artifact),
            human_bytes(device.storage_bytes),
            artifact,
            device.storage_bytes,
        )


def artifact_size(artifact: int, workload: Workload) -> Iterator[Reason]:
    """The model files must stay below the limit of the workload."""
    limit = workload.max_artifact_bytes
    if limit is not None and artifact > limit:
        yield Reason(
            "artifact", human_bytes(artifact), f"a limit of {human_bytes(limit)}", artifact, limit
        )


def file_size(least: int, workload: Workload, runtime: str) -> Iterator[Reason]:
    """The largest file must stay below the limit; what a runtime does not split counts as a
    whole."""
    limit = workload.max_file_bytes
    if limit is not None and least > limit:
        yield Reason(
            "file",
            f"one file of {human_bytes(least)}, as {runtime} writes it",
            f"a limit of {human_bytes(limit)}",
            least,
            limit,
        )
