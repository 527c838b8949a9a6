"""The Pareto plot of a target as SVG: memory across, decoded tokens per second up, both on
logarithmic scales. Plain shapes and attributes, no style, no script, nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from packager.units import human_bytes

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 44, 56
_INK, _PALE, _FRONT, _OTHER = "#24292f", "#d0d7de", "#0969da", "#8c959f"
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_MOST_LABELS = 24


@dataclass(frozen=True, slots=True)
class Point:
    """One package: its name, peak memory in bytes, tokens per second, whether it is on the
    front."""

    name: str
    memory: float
    speed: float
    front: bool


def plot(title: str, points: Sequence[Point]) -> str:
    """The whole picture; every text in it is escaped."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 24, title, size=15),
    ]
    if points:
        across = _Scale([point.memory for point in points], _LEFT, _WIDTH - _RIGHT)
        up = _Scale([point.speed for point in points], _HEIGHT - _BOTTOM, _TOP)
        parts += [*_grid(across, up), _line(across, up, points), *_marks(across, up, points)]
    else:
        parts.append(_text(_LEFT, _HEIGHT / 2, "Nothing was measured."))
    return "\n".join([*filter(None, parts), "</svg>", ""])


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
        found = [
            factor * 10.0**power
            for power in range(floor(self._low), ceil(self._high) + 1)
            for factor in (1, 2, 5)
            if self._low <= log10(factor * 10.0**power) <= self._high
        ]
        if len(found) >= 2:
            return found
        return [10**self._low * 1.02, 10**self._high / 1.02]


def _grid(across: _Scale, up: _Scale) -> list[str]:
    parts = []
    bottom = _HEIGHT - _BOTTOM
    for value in across.ticks():
        x = across.at(value)
        parts.append(_stroke(x, _TOP, x, bottom))
        parts.append(_text(x, bottom + 18, human_bytes(value), anchor="middle"))
    for value in up.ticks():
        y = up.at(value)
        parts.append(_stroke(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 8, y + 4, f"{value:.3g}", anchor="end"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, _HEIGHT - 14, "peak memory", anchor="middle"))
    parts.append(_text(_LEFT - 8, _TOP - 8, "tok/s", anchor="end"))
    return parts


def _line(across: _Scale, up: _Scale, points: Sequence[Point]) -> str:
    front = sorted((one.memory, one.speed) for one in points if one.front)
    if len(front) < 2:
        return ""
    way = " ".join(f"{across.at(memory):.1f},{up.at(speed):.1f}" for memory, speed in front)
    return f'<polyline points="{way}" fill="none" stroke="{_FRONT}" stroke-dasharray="4 3"/>'


def _marks(across: _Scale, up: _Scale, points: Sequence[Point]) -> list[str]:
    parts = []
    named = [one for one in points if one.front] if len(points) > _MOST_LABELS else list(points)
    for point in points:
        x, y = across.at(point.memory), up.at(point.speed)
        # The front is told by shape as well as by colour.
        fill, stroke = (_FRONT, _FRONT) if point.front else ("#ffffff", _OTHER)
        label = f"{point.name}: {human_bytes(point.memory)}, {point.speed:.3g} tok/s"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{stroke}">'
            f"<title>{escape(label)}</title></circle>"
        )
    for point in named[:_MOST_LABELS]:
        x, y = across.at(point.memory), up.at(point.speed)
        end = x > (_WIDTH - _RIGHT + _LEFT) / 2
        parts.append(
            _text(x - 9 if end else x + 9, y - 6, point.name, anchor="end" if end else "start")
        )
    return parts


def _stroke(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_PALE}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{_INK}">{escape(text)}</text>'
    )
