"""Is this machine the device that a target stands for? Figures taken elsewhere are a check, and
judge no budget of the device.

A device file that stands for one product says what such a machine calls itself (`known_by`: its
processor, board or GPU); one that stands for a class ("a laptop with 16 GB") does not, and any
machine with its instruction set counts as one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from packager.device.target import Target
from packager.json_values import JsonObject, at, at_or_none, texts_at
from packager.units import human_bytes

NOT_YET = "not yet measured on the device"

# A system keeps some of its memory from programs, or lends it to its graphics; a twin of the next
# size has half or twice as much.
_LEAST_MEMORY, _MOST_MEMORY = 0.75, 1.2
_DECISIVE = frozenset({"avx2", "avx512", "dotprod", "rvv"})
"""Extensions that kernels are chosen by and that every system reports; others, Windows keeps to
itself."""
_ANOTHER_PRODUCT = r"(?!\s+(?:ti|super|pro|max|ultra|laptop|mobile|d)\b)"
"""Words behind a product's name that make it another product: an RTX 3060 Ti is no RTX 3060."""


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, as far as a device is told by it: bytes; `names` are what processor and board
    call themselves, `gpus` each GPU's name and its memory."""

    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    names: tuple[str, ...]
    gpus: tuple[tuple[str, int], ...] = ()
    phone: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a device from other machines; it travels in the manifest, so that `bench` knows
    the device when it is there."""

    kind: str
    isa: str
    cores: int
    memory_bytes: int
    runs_on: str
    gpu: str = ""
    npu: str = ""
    gpu_memory_bytes: int | None = None
    known_by: tuple[str, ...] = ()
    gpus: int = 1

    @classmethod
    def of(cls, target: Target) -> Identity:
        """The identity of a target's device."""
        facts = {
            field.name: getattr(target.device, field.name)
            for field in fields(cls)
            if field.name != "kind"
        }
        return cls(kind=target.kind, **facts)

    @classmethod
    def from_dict(cls, data: JsonObject) -> Identity:
        """The inverse of `as_dict`. Raises WrongKind where a field is missing or is of another
        kind."""
        return cls(
            kind=at(data, "kind", str),
            isa=at(data, "isa", str),
            cores=at(data, "cores", int),
            memory_bytes=at(data, "memory_bytes", int),
            runs_on=at(data, "runs_on", str),
            gpu=at_or_none(data, "gpu", str) or "",
            npu=at_or_none(data, "npu", str) or "",
            gpu_memory_bytes=at_or_none(data, "gpu_memory_bytes", int),
            known_by=tuple(texts_at(data, "known_by")),
            # A manifest from before devices had several GPUs has no count of them.
            gpus=at_or_none(data, "gpus", int) or 1,
        )

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {**asdict(self), "known_by": list(self.known_by)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is measured, as seen from the device it is for."""

    on_device: bool
    why: str

    def as_dict(self) -> JsonObject:
        """JSON form, beside the figures of a measurement."""
        return asdict(self)


UNKNOWN = Place(False, "this machine was not compared with the device")
CLAIMED = Place(True, "whoever measured stated that this is the device")


def place(device: Identity, here: Here) -> Place:
    """Whether this machine is one of the device's kind, with the reason."""
    difference = _difference(device, here)
    if difference is not None:
        return Place(False, difference)
    if _known_by(device):
        return Place(True, f"this machine calls itself {_called(device, here)}")
    return Place(
        True,
        "the target is a class of devices, and this machine has its instruction set "
        f"({device.isa})",
    )


def devices_of(here: Here, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets that a machine is one of, as far as its CPU is what runs the model: those that
    know it by name first, and of the classes those of about its memory; each group by how near the
    memory is."""

    def rank(target: Target) -> tuple[bool, float]:
        wanted = target.device.memory_bytes
        return not target.device.known_by, abs(math.log(wanted / here.memory_bytes))

    like = [
        target
        for target in targets
        if target.device.runs_on == "cpu"
        and place(Identity.of(target), here).on_device
        and _memory("memory", target.device.memory_bytes, here.memory_bytes) is None
    ]
    return tuple(sorted(like, key=rank))


def of_figures(found: Place, device: Identity, runs_on: str) -> Place:
    """The place of figures that were taken on one unit of this machine: on the device only where
    that is the one that carries the model."""
    if found.on_device and runs_on != device.runs_on:
        return Place(
            False,
            f"the device runs models on its {device.runs_on.upper()}, and the benchmark ran on the "
            f"{runs_on.upper()}",
        )
    return found


def _difference(device: Identity, here: Here) -> str | None:
    """The first thing in which this machine is not the device; None where it is one."""
    architecture, *extensions = device.isa.split()
    if here.isa[:1] != (architecture,):
        return f"the device is {architecture}, this machine {' '.join(here.isa[:1]) or 'unknown'}"
    if device.kind == "phone" and not here.phone:
        return "the device is a phone, and this machine is not"
    missing = [word for word in extensions if word in _DECISIVE and word not in here.isa]
    if missing:
        return f"the device has {' '.join(missing)}, this machine does not"
    known_by = _known_by(device)
    if not known_by:
        return None
    if _called(device, here) is None:
        return (
            f"the device is called {' or '.join(known_by)}, this machine "
            f"{' and '.join(_all_names(here)) or 'nothing'}"
        )
    if device.runs_on == "gpu" and device.gpu_memory_bytes is not None:
        sizes = [size for name, size in here.gpus if _matches(known_by, name)]
        if len(sizes) < device.gpus:
            return f"the device has {device.gpus} of these GPUs, this machine {len(sizes)}"
        return _memory("GPU memory", device.gpu_memory_bytes, max(sizes, default=0))
    if device.runs_on == "cpu" and here.cores < device.cores:
        return f"the device has {device.cores} cores, and {here.cores} may be used here"
    return _memory("memory", device.memory_bytes, here.memory_bytes)


def _memory(what: str, wanted: int, has: int) -> str | None:
    if _LEAST_MEMORY * wanted <= has <= _MOST_MEMORY * wanted:
        return None
    return f"the device has {human_bytes(wanted)} of {what}, this machine {human_bytes(has)}"


def _known_by(device: Identity) -> tuple[str, ...]:
    """What the device calls itself; a GPU or NPU that carries the model is always one of a kind."""
    if device.known_by or device.runs_on == "cpu":
        return device.known_by
    return (device.gpu if device.runs_on == "gpu" else device.npu,)


def _all_names(here: Here) -> tuple[str, ...]:
    return (*here.names, *(name for name, _ in here.gpus))


def _called(device: Identity, here: Here) -> str | None:
    return next((name for name in _all_names(here) if _matches(_known_by(device), name)), None)


def _matches(known_by: tuple[str, ...], name: str) -> bool:
    """Whether a name holds one of the texts as whole words that no word behind makes another
    product."""
    return any(
        re.search(rf"(?<!\w){re.escape(text)}(?!\w){_ANOTHER_PRODUCT}", name, re.IGNORECASE)
        for text in known_by
    )
