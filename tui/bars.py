"""Bars made of characters: a length that reads without colour, in eighths of a cell."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉"
FULL, TRACK = "█", "─"


def bar(share: float, width: int) -> str:
    """A bar of exactly `width` cells that is `share` (0 to 1, cut off beyond) full; anything above
    zero can be seen."""
    if width <= 0:
        return ""
    share = min(1.0, max(0.0, share))
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return (FULL * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def line(share: float, width: int) -> str:
    """A thin bar of exactly `width` cells, in halves of a cell: rows below each other stay
    apart."""
    if width <= 0:
        return ""
    share = min(1.0, max(0.0, share))
    halves = max(1, round(share * width * 2)) if share > 0 else 0
    return ("━" * (halves // 2) + ("╸" if halves % 2 else "")).ljust(width)


def split(parts: Sequence[float], width: int) -> list[int]:
    """Whole cells per part, together `width`, each positive part at least one: largest remainders
    first."""
    total = sum(parts)
    if width <= 0 or total <= 0:
        return [0] * len(parts)
    exact = [part * width / total for part in parts]
    cells = [
        max(1, int(share)) if part > 0 else 0 for part, share in zip(parts, exact, strict=True)
    ]
    order = sorted(
        range(len(parts)), key=lambda index: exact[index] - int(exact[index]), reverse=True
    )
    while sum(cells) < width:
        for index in order:
            if parts[index] > 0 and sum(cells) < width:
                cells[index] += 1
    while sum(cells) > width:
        largest = max(range(len(cells)), key=lambda index: cells[index])
        cells[largest] -= 1
    return cells


def span(low: float, middle: float, high: float, top: float, width: int) -> str:
    """A range on a scale from 0 to `top`: `····├──●────┤···`, `width` cells."""
    if width < 3 or top <= 0:
        return ""
    cells = ["·"] * width
    left, centre, right = (
        min(width - 1, max(0, round(value / top * (width - 1)))) for value in (low, middle, high)
    )
    for cell in range(left, right + 1):
        cells[cell] = "─"
    cells[left], cells[right] = "├", "┤"
    cells[centre] = "●"
    return "".join(cells)
