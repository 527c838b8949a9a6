"""Points of the Pareto plot without a screen: memory, speed, quality, who is on the front, and the
limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packager.records import Contents
from packager.report.pareto import machine_of, published_quality, same
from packager.select.preference import LOSSLESS_BITS
from tui.describe import purpose
from tui.table import speed

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.select import Candidate
    from tui.core import Found

Axis = Literal["memory", "speed", "quality"]
UNITS: dict[Axis, str] = {
    "memory": "peak memory, GB",
    "speed": "speed, tok/s",
    "quality": "published score, unquantized",
}
PAIRS: tuple[tuple[Axis, Axis], ...] = (
    ("memory", "speed"),
    ("memory", "quality"),
    ("speed", "quality"),
)
_FINE_BITS = 4.0
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Point:
    """Bytes, tokens per second, quality (None where unknown), bits per weight as far as they tell
    two recipes apart.

    `coarse` marks a recipe under 4 bits per weight, `held` one that is held back for the task,
    `passes` whether no rule stands against it.
    """

    label: str
    memory: float
    speed: float
    quality: float | None
    bits: float = 0.0
    coarse: bool = False
    passes: bool = True
    held: bool = False

    def at(self, axis: Axis) -> float | None:
        """The value on an axis, memory in GB."""
        return {"memory": self.memory / 1e9, "speed": self.speed, "quality": self.quality}[axis]


@dataclass(frozen=True, slots=True)
class Scatter:
    """What is plotted: `kind` says whether it was predicted or measured; limits are bytes and
    tokens per second."""

    title: str
    kind: str
    points: tuple[Point, ...]
    memory_limit: float | None = None
    speed_floor: float | None = None

    def shown(self, pair: tuple[Axis, Axis]) -> list[Point]:
        """The points that have both values."""
        return [point for point in self.points if all(point.at(axis) is not None for axis in pair)]

    def front(self) -> dict[str, Point]:
        """The points that no other beats on memory, speed and quality together, by letter, from the
        least memory up.

        Scores are those of the unquantized model: between recipes of one score the one that leaves
        more bits to a weight is the better, and a coarse one, which loses more than a larger
        variant gains, is on no front, nor one that is held back. What a rule stands against is on
        none either. A point without a score counts as one with none.
        """
        from packager.select.preference import pareto_front

        eligible = [
            point for point in self.points if point.passes and not point.coarse and not point.held
        ]
        qualities = sorted({(point.quality or 0.0, point.bits) for point in eligible})
        places = {quality: float(place) for place, quality in enumerate(qualities)}
        triples = {
            point: (places[point.quality or 0.0, point.bits], point.speed, -point.memory)
            for point in eligible
        }
        best = set(pareto_front(list(triples.values())))
        unique = {triples[point]: point for point in reversed(eligible) if triples[point] in best}
        ordered = sorted(unique.values(), key=lambda point: (point.memory, -point.speed))
        return dict(zip(_LETTERS, ordered, strict=False))

    @property
    def coarse(self) -> int:
        """How many points are under 4 bits per weight, and so on no front."""
        return sum(point.coarse for point in self.points)

    @property
    def held(self) -> int:
        """How many are held back for the task, and so on no front."""
        return sum(point.held for point in self.points)


def of_candidates(found: Found) -> Scatter:
    """Everything that fits; where nothing does, everything that could be sized."""
    workload = found.ask.workload()
    fitting = [candidate for candidate in found.candidates if candidate.passes] or [
        candidate for candidate in found.candidates if candidate.sized
    ]
    limits = [
        found.ask.target.device.all_available_bytes,
        *([workload.max_memory_bytes] if workload.max_memory_bytes else []),
    ]
    points = tuple(_point(candidate) for candidate in fitting)
    kind = (
        "predicted" if any(candidate.passes for candidate in fitting) else "predicted; nothing fits"
    )
    return Scatter(
        f"{purpose(workload)} on {found.ask.target.name}",
        kind,
        points,
        min(limits),
        workload.min_decode_tps,
    )


def _point(candidate: Candidate) -> Point:
    bits = min(candidate.bits_per_weight, LOSSLESS_BITS)
    return Point(
        label_of(candidate),
        candidate.footprint.peak,
        speed(candidate),
        candidate.quality,
        bits,
        candidate.coarse,
        candidate.passes,
        candidate.held,
    )


def label_of(candidate: Candidate) -> str:
    """What the point of a candidate is called."""
    return f"{candidate.variant.name} {candidate.recipe.id}"


def _bits(contents: Contents) -> float:
    """Bits per weight of a package whose variant is in the catalogue; 0 where it is not known."""
    from packager import catalog
    from packager.errors import PackError

    try:
        params = catalog.find(contents.variant.repo_id).params_total
    except PackError:
        return 0.0
    size = contents.artifact_bytes
    return min(LOSSLESS_BITS, 8 * size / params) if params and size else 0.0


def of_packages(packages: Sequence[Package]) -> Scatter:
    """Every package that was measured; quality is the mean of the published scores of its use case,
    where there are all."""
    points = []
    limits: list[float] = []
    floors: list[float] = []
    for package in packages:
        contents = package.contents
        measured = contents.telling
        if measured is None or measured.peak_memory_bytes is None or measured.decode_tps is None:
            continue
        memory, speed = measured.peak_memory_bytes, measured.decode_tps
        bits = _bits(contents)
        points.append(
            Point(
                contents.name,
                memory,
                speed,
                published_quality(contents),
                bits,
                0 < bits < _FINE_BITS,
            )
        )
        for verdict in contents.verdicts:
            if verdict.rule == "memory":
                limits.append(verdict.limit)
            elif verdict.rule == "decode":
                floors.append(verdict.limit)
    kind = (
        "measured"
        if same([package.contents for package in packages], machine_of)
        else "measured on different machines"
    )
    return Scatter(
        "packages on the shelf",
        kind,
        tuple(points),
        min(limits, default=None),
        max(floors, default=None),
    )
