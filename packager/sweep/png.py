"""A chart as PNG, drawn by Pillow with the font that it brings: the same on every machine."""

from __future__ import annotations

import io
from math import hypot
from typing import Any

from packager.sweep.chart import FRONT, HEIGHT, INK, OTHER, WIDTH, Chart, Dot, Label, Line

_SCALE, _FINER = 2, 2
"""Pixels of the picture per pixel of the chart, and how much finer it is drawn before edges are
smoothed."""
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
_DASH, _GAP = 4.0, 3.0


def png(chart: Chart) -> bytes:
    """The whole picture. Raises ImportError without Pillow."""
    from PIL import Image, ImageDraw, ImageFont

    many = _SCALE * _FINER
    image = Image.new("RGB", (WIDTH * many, HEIGHT * many), "#ffffff")
    draw = ImageDraw.Draw(image)
    fonts: dict[int, Any] = {}
    for shape in chart.shapes:
        match shape:
            case Line():
                for start, end in _pieces(shape):
                    ends = (*(many * part for part in start), *(many * part for part in end))
                    draw.line(ends, fill=shape.colour, width=many)
            case Dot():
                fill, stroke = (FRONT, FRONT) if shape.full else ("#ffffff", OTHER)
                box = [many * (at + by) for by in (-5, 5) for at in (shape.x, shape.y)]
                draw.ellipse(box, fill=fill, outline=stroke, width=many)
            case Label():
                size = shape.size
                fonts[size] = fonts.get(size) or ImageFont.load_default(many * size)
                corner = (many * shape.x, many * shape.y)
                draw.text(corner, shape.text, INK, fonts[size], _ANCHORS[shape.anchor])
    small = image.resize((WIDTH * _SCALE, HEIGHT * _SCALE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


def _pieces(line: Line) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The strokes of a line: one for each part of its way, or the dashes of it."""
    strokes = []
    for (x, y), (to_x, to_y) in zip(line.way, line.way[1:], strict=False):
        length = hypot(to_x - x, to_y - y)
        step = _DASH + _GAP if line.dashed else max(length, 1.0)
        stroke = _DASH if line.dashed else length
        at = 0.0
        while at < length:
            ends = (at / length, min(at + stroke, length) / length)
            start, end = ((x + (to_x - x) * part, y + (to_y - y) * part) for part in ends)
            strokes.append((start, end))
            at += step
    return strokes
