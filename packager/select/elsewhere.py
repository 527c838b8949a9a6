"""Where nothing fits: where the model would run instead, and the memory that takes there."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packager.device.target import Target
from packager.errors import PackError
from packager.json_values import JsonObject, at
from packager.need.workload import Workload
from packager.predict.memory import kv_cache_bytes
from packager.runtime import Runtime
from packager.select.candidate import Candidate
from packager.select.engine import candidates, choose
from packager.units import human_bytes

FILE = Path(__file__).with_name("elsewhere.toml")
_OF_THE_DEVICE = frozenset({"memory", "storage", "decode", "ttft", "documents", "query"})
"""Rules that a larger or faster device meets."""
_MOST = 16
"""Accelerators of one machine; above that a count says nothing."""


@dataclass(frozen=True, slots=True)
class Accelerators:
    """So many of one kind behind one engine; no count where the memory of one is not known."""

    name: str
    engine: str
    count: int | None
    source: str

    def __str__(self) -> str:
        many = "" if self.count is None else f"{self.count} x "
        return f"{many}{self.name} ({self.engine})"


@dataclass(frozen=True, slots=True)
class Hosted:
    """A service that runs it; the prompts leave the device."""

    name: str
    what: str
    source: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The nearest variant that only the device stands in the way of, and where it would run."""

    candidate: Candidate
    on: Candidate | None
    device: str | None
    full_bytes: int
    accelerators: tuple[Accelerators, ...]
    hosted: tuple[Hosted, ...]

    def __str__(self) -> str:
        name = self.candidate.variant.name
        if self.on is None:
            here = f"No device that is known here runs {name} as it is asked for."
        else:
            split = self.on.split
            beside = (
                f" on the GPU and {human_bytes(split.host.peak)} of system memory"
                if split and not split.whole
                else ""
            )
            here = (
                f"{self.on.label} passes every rule on {self.device}, where it takes "
                f"{human_bytes(self.on.footprint.peak)}{beside}."
            )
        full = f"Unquantized (BF16{self._cache()}) it takes {human_bytes(self.full_bytes)}: "
        hosted = "".join(
            f" Hosted, with the prompts leaving the device: {offer.name}, {offer.what}."
            for offer in self.hosted
        )
        there = " or ".join(map(str, self.accelerators)) or "more than one machine holds"
        return f"Where it would run: {here} {full}{there}.{hosted}"

    def _cache(self) -> str:
        """The cache that is counted: one for each sequence, none for a vector or a score."""
        shape, count = self.candidate.variant.shape, self.candidate.forecast.parallel
        if shape is None or shape.task != "generate":
            return ""
        each = f" of each of {count} sequences" if count > 1 else ""
        return f", with a cache for {self.candidate.context} tokens{each}"

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "variant": self.candidate.variant.repo_id,
            "device": self.device,
            "recipe": self.on.recipe.id if self.on else None,
            "peak_bytes": self.on.footprint.peak if self.on else None,
            "bf16_bytes": self.full_bytes,
            "accelerators": [
                {
                    "name": offer.name,
                    "engine": offer.engine,
                    "count": offer.count,
                    "source": offer.source,
                }
                for offer in self.accelerators
            ],
            "hosted": [
                {"name": offer.name, "what": offer.what, "source": offer.source}
                for offer in self.hosted
            ],
            "text": str(self),
        }


def elsewhere(
    target: Target,
    judged: Sequence[Candidate],
    larger: Sequence[tuple[Target, Workload]],
    runtimes: Sequence[Runtime],
    *,
    named: bool = False,
) -> Elsewhere | None:
    """Where the nearest of the rejected would run that only the device stands in the way of; None
    where there is no such one.

    `larger` are known devices with more memory, each with what would be asked of it. Named is one
    of the target's kind before another, the smallest that meets every rule in a recipe with 4 bits
    a weight or more.
    """
    near = next(
        (candidate for candidate in judged if candidate.sized and _of_the_device(candidate)), None
    )
    if near is None or near.variant.shape is None:
        return None
    on, device = None, None
    for other, asked in sorted(
        larger,
        key=lambda pair: (
            pair[0].kind != target.kind,
            pair[0].device.all_available_bytes,
            pair[0].name,
        ),
    ):
        with suppress(PackError):
            best = choose(candidates(other, asked, (near.variant,), runtimes, named=named))
            if best is not None and best.sure and not best.last:
                on, device = best, other.name
                break
    weights = 2 * (near.variant.params_total or near.variant.shape.parameters())
    full = weights
    if near.variant.shape.task == "generate":
        full += near.forecast.parallel * kv_cache_bytes(near.variant.shape, near.context, 16)
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    rows = [
        row
        for row in data["accelerator"]
        if near.variant.family in row.get("families", (near.variant.family,))
    ]
    places = tuple(place for row in rows if (place := _so_many(row, full)) is not None)
    return Elsewhere(near, on, device, full, places, tuple(Hosted(**row) for row in data["hosted"]))


def _of_the_device(candidate: Candidate) -> bool:
    return (
        bool(candidate.reasons) and {reason.rule for reason in candidate.reasons} <= _OF_THE_DEVICE
    )


def _so_many(row: JsonObject, needed: int) -> Accelerators | None:
    """As many as hold it, a power of two, as heads are split evenly; None where one machine has not
    as many."""
    count = None
    if "bytes" in row:
        count, usable = 1, at(row, "share", float) * at(row, "bytes", float)
        while count * usable < needed:
            count *= 2
        if count > _MOST:
            return None
    return Accelerators(at(row, "name", str), at(row, "engine", str), count, at(row, "source", str))
