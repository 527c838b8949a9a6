"""The Pareto plot of a target as shapes: memory across, decoded tokens per second up, both on
logarithmic scales. What writes it as SVG or PNG draws them and knows nothing of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from packager.units import human_bytes

WIDTH, HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 44, 56
INK, PALE, FRONT, OTHER = "#24292f", "#d0d7de", "#0969da", "#8c959f"
_MOST_LABELS = 24


@dataclass(frozen=True, slots=True)
class Point:
    """One package: its name, peak memory in bytes, tokens per second, whether it is on the
    front."""

    name: str
    memory: float
    speed: float
    front: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line through places; `dashed` where it joins points."""

    way: tuple[tuple[float, float], ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A point; `full` on the front, so that it is told by shape as well as by colour."""

    x: float
    y: float
    full: bool
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """A text whose baseline begins, is centred, or ends at a place; `size` in pixels."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = 12


Shape = Line | Dot | Label


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of WIDTH by HEIGHT pixels on white."""

    title: str
    shapes: tuple[Shape, ...]


def chart(title: str, points: Sequence[Point]) -> Chart:
    """The whole picture of these points."""
    head = Label(_LEFT, 24, title, size=15)
    if not points:
        return Chart(title, (head, Label(_LEFT, HEIGHT / 2, "Nothing was measured.")))
    across = _Scale([point.memory for point in points], _LEFT, WIDTH - _RIGHT)
    up = _Scale([point.speed for point in points], HEIGHT - _BOTTOM, _TOP)
    parts = (*_grid(across, up), *_front(across, up, points), *_marks(across, up, points))
    return Chart(title, (head, *parts))


class _Scale:
    """Values on a logarithmic axis, with the ticks 1, 2 and 5."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        known = [max(value, 1e-9) for value in values]
        low, high = log10(min(known)), log10(max(known))
        margin = max(0.08, 0.06 * (high - low))
        self._low, self._high = low - margin, high + margin
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (log10(max(value, 1e-9)) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        marks = [
            factor * 10.0**power
            for power in range(floor(self._low), ceil(self._high) + 1)
            for factor in (1, 2, 5)
            if self._low <= log10(factor * 10.0**power) <= self._high
        ]
        if len(marks) >= 2:
            return marks
        return [10**self._low * 1.02, 10**self._high / 1.02]


def _grid(across: _Scale, up: _Scale) -> list[Shape]:
    parts: list[Shape] = []
    bottom = HEIGHT - _BOTTOM
    for value in across.ticks():
        x = across.at(value)
        parts.append(Line(((x, _TOP), (x, bottom)), PALE))
        parts.append(Label(x, bottom + 18, human_bytes(value), "middle"))
    for value in up.ticks():
        y = up.at(value)
        parts.append(Line(((_LEFT, y), (WIDTH - _RIGHT, y)), PALE))
        parts.append(Label(_LEFT - 8, y + 4, _rate(value), "end"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(Label(middle, HEIGHT - 14, "peak memory", "middle"))
    parts.append(Label(_LEFT - 8, _TOP - 8, "tok/s", "end"))
    return parts


def _front(across: _Scale, up: _Scale, points: Sequence[Point]) -> list[Shape]:
    front = sorted((point.memory, point.speed) for point in points if point.front)
    if len(front) < 2:
        return []
    way = tuple((across.at(memory), up.at(speed)) for memory, speed in front)
    return [Line(way, FRONT, dashed=True)]


def _marks(across: _Scale, up: _Scale, points: Sequence[Point]) -> list[Shape]:
    parts: list[Shape] = []
    named = [one for one in points if one.front] if len(points) > _MOST_LABELS else list(points)
    for point in points:
        title = f"{point.name}: {human_bytes(point.memory)}, {_rate(point.speed)} tok/s"
        parts.append(Dot(across.at(point.memory), up.at(point.speed), point.front, title))
    for point in named[:_MOST_LABELS]:
        x, y = across.at(point.memory), up.at(point.speed)
        end = x > (WIDTH - _RIGHT + _LEFT) / 2
        parts.append(Label(x - 9 if end else x + 9, y - 6, point.name, "end" if end else "start"))
    return parts


def _rate(value: float) -> str:
    """Tokens per second in three digits, or all of a large number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
