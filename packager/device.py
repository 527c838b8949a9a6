"""Device and Target: facts of one machine class, and the runtimes that serve it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packager.forecast import Confidence
from packager.workload import Workload


@dataclass(frozen=True, slots=True)
class Device:
    """Facts of one machine class. Bytes, bytes per second, operations per second.

    `reserve_bytes` stays with the system and other programs; `process_cap_bytes` is what the
    system lets one process take (phones), None where there is no such cap. `bandwidth` and `compute`
    are effective figures, as an engine's kernels reach them, not the data sheet's.
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

    @property
    def available_bytes(self) -> int:
        """What one model may take: memory less the reserve, under the cap for one process."""
        free = max(0, self.memory_bytes - self.reserve_bytes)
        return free if self.process_cap_bytes is None else min(free, self.process_cap_bytes)


@dataclass(frozen=True, slots=True)
class Target:
    """A named device, the runtimes that serve it (best first), and what is asked of it by default."""

    name: str
    summary: str
    kind: str
    device: Device
    runtimes: tuple[str, ...]
    recipes: tuple[str, ...]
    workload: Workload
    path: str

    def as_dict(self) -> dict[str, Any]:
        """The fields of the contract; `memory_bytes` stands at the top for scripts that sort by it."""
        from dataclasses import asdict

        device = asdict(self.device)
        sources = device.pop("sources")
        return {
            "name": self.name,
            "summary": self.summary,
            "kind": self.kind,
            "runtimes": list(self.runtimes),
            "recipes": list(self.recipes),
            "memory_bytes": self.device.memory_bytes,
            "available_bytes": self.device.available_bytes,
            "device": device,
            "workload": self.workload.as_dict(),
            "sources": sources,
        }
