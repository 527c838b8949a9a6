"""A chart as SVG: plain shapes and attributes, no style, no script, nothing from outside."""

from __future__ import annotations

from packager.escapes import html
from packager.sweep.chart import FRONT, HEIGHT, INK, OTHER, WIDTH, Chart, Dot, Label, Line, Shape

_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def svg(chart: Chart) -> str:
    """The whole picture; every text in it is escaped."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html(chart.title)}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *(_shape(shape) for shape in chart.shapes),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _shape(shape: Shape) -> str:
    match shape:
        case Line():
            way = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.way)
            dashes = ' stroke-dasharray="4 3"' if shape.dashed else ""
            return f'<polyline points="{way}" fill="none" stroke="{shape.colour}"{dashes}/>'
        case Dot():
            fill, stroke = (FRONT, FRONT) if shape.full else ("#ffffff", OTHER)
            return (
                f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="5" fill="{fill}" '
                f'stroke="{stroke}"><title>{html(shape.title)}</title></circle>'
            )
        case Label():
            return (
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}" '
                f'font-size="{shape.size}" fill="{INK}">{html(shape.text)}</text>'
            )
