"""Device and Target: facts of one machine class, and the runtimes that serve it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from packager.json_values import JsonObject
from packager.need.workload import Workload

Confidence = Literal["measured", "same-class", "estimated"]


Unit = Literal["cpu", "gpu", "npu"]
BackEnd = Literal["cuda", "metal", "vulkan", "npu"]
BACK_ENDS: tuple[BackEnd, ...] = ("cuda", "metal", "vulkan", "npu")


@dataclass(frozen=True, slots=True)
class Device:
    """Facts of one machine class. Bytes, bytes per second, operations per second.

    `runs_on` says which unit carries the model; a machine whose processor and graphics both
    serve is two devices. `bandwidth` and `compute` are effective figures of that unit, as an
    engine's kernels reach them (floating-point operations count a multiply-add as two), not the
    data sheet's. `operation_seconds` is what a small operation of a model takes: on a processor
    a product of 256 x 256 weights in the cache, on a GPU the start of a kernel; None where the
    bandwidth was taken from whole models alone, which holds it already. `reserve_bytes` stays
    with the system and other programs; `process_cap_bytes` is what the system lets one process
    take (phones, shared graphics memory), None where there is no such cap. `gpu_memory_bytes`
    is memory of the GPU's own, None where it shares the system's; `gpu_reserve_bytes` of it
    stays with the desktop and the driver. `gpus` of them are there, all alike, each with that
    memory: layers are shared among them, and the rates stay those of one. `host_bandwidth` and
    `host_compute` serve the layers that do not fit on the GPU; `link_bandwidth` is the way
    between the two. `npu_ops` are int8 operations per second as the data sheet gives them.
    `known_by` is what the processor, board or GPU of a product calls itself; empty for a class
    of machines. `cannot_run` says of runtimes why they do not run on this processor, as far as
    it was probed. `backend` is what drives the GPU or NPU; where it is empty, the unit's name
    tells. `disturbed` is the share of the processors (0 to 1) that other programs took while
    the rates were measured, None where that was little: the true rates are then higher.
    """

    memory_bytes: int
    reserve_bytes: int
    process_cap_bytes: int | None
    isa: str
    cores: int
    bandwidth: float
    compute: float
    storage_bytes: int | None
    confidence: Confidence
    gpu_memory_bytes: int | None = None
    sources: dict[str, str] = field(default_factory=dict)
    cpu: str = ""
    gpu: str = ""
    npu: str = ""
    runs_on: Unit = "cpu"
    gpu_reserve_bytes: int = 0
    host_bandwidth: float | None = None
    host_compute: float | None = None
    link_bandwidth: float | None = None
    storage_bandwidth: float | None = None
    npu_ops: float | None = None
    known_by: tuple[str, ...] = ()
    operation_seconds: float | None = None
    cannot_run: dict[str, str] = field(default_factory=dict)
    backend: BackEnd | None = None
    disturbed: float | None = None
    gpus: int = 1

    @property
    def computes_with(self) -> str:
        """What an engine's speed depends on: the back end where models run on a GPU or NPU, then
        the instruction sets."""
        if self.runs_on == "cpu":
            return self.isa
        return f"{self.backend or _back_end(self)} {self.isa}"

    @property
    def available_bytes(self) -> int:
        """What one model may take where it runs: one GPU's own memory, or the system's less the
        reserve, under the cap."""
        if self.runs_on == "gpu" and self.gpu_memory_bytes is not None:
            return max(0, self.gpu_memory_bytes - self.gpu_reserve_bytes)
        return self.host_available_bytes

    @property
    def all_available_bytes(self) -> int:
        """The same of all GPUs together, for an engine that shares the layers among them."""
        return self.available_bytes * self.gpus

    @property
    def host_available_bytes(self) -> int:
        """What one process may take of the system's memory: all of it less the reserve, under the
        cap for one process."""
        free = max(0, self.memory_bytes - self.reserve_bytes)
        return free if self.process_cap_bytes is None else min(free, self.process_cap_bytes)


def _back_end(device: Device) -> BackEnd:
    """The usual one of the unit that a device's file names."""
    if device.runs_on == "npu":
        return "npu"
    if any(word in device.gpu for word in ("NVIDIA", "CUDA", "GeForce", "RTX", "GTX", "Jetson")):
        return "cuda"
    return "metal" if "Apple" in device.gpu else "vulkan"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The first recipe of a runtime on processors like the device's, where its file names none of
    that runtime; `why` is the measurement in a sentence."""

    runtime: str
    recipe: str
    why: str


@dataclass(frozen=True, slots=True)
class Target:
    """A named device, the runtimes that serve it (best first), and what is asked of it by
    default. `tuned` are first recipes by measurement, which its own `recipes` go before."""

    name: str
    summary: str
    kind: str
    device: Device
    runtimes: tuple[str, ...]
    recipes: tuple[str, ...]
    workload: Workload
    path: str
    aliases: tuple[str, ...] = ()
    tuned: tuple[Tuned, ...] = ()

    def as_dict(self) -> JsonObject:
        """The fields of the contract; `memory_bytes` stands at the top for scripts that sort by
        it."""
        import msgspec

        device = msgspec.to_builtins(self.device)
        sources = device.pop("sources")
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "summary": self.summary,
            "kind": self.kind,
            "runtimes": list(self.runtimes),
            "recipes": list(self.recipes),
            "memory_bytes": self.device.memory_bytes,
            "available_bytes": self.device.available_bytes,
            "all_available_bytes": self.device.all_available_bytes,
            "device": device,
            "workload": self.workload.as_dict(),
            "sources": sources,
        }
