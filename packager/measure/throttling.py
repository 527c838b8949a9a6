"""A long run that shows throttling: the decode rate per window of time, with clock and
temperature."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from packager.measure.gauges.clock import celsius, megahertz
from packager.measure.gauges.load import Mark
from packager.measure.noise import BUSY_CORES
from packager.runtime import Session

WINDOWS = 24
"""Windows of a run; none is shorter than a second."""

THROTTLED = 0.9
"""A last rate below this share of the first, with nobody else at work, is throttling."""

_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class _Window:
    began: Mark = field(default_factory=Mark.now)
    tokens: int = 0
    seconds: float = 0.0


def run(
    model: Session,
    prompt: Sequence[int],
    room: int,
    seconds: float,
    on_window: Callable[[int, int], None],
) -> dict[str, Any]:
    """Decode for so many seconds, `room` tokens behind the prompt at a time; see `summary`.

    The time in which a prompt is read belongs to no rate.
    """
    length = max(1.0, seconds / WINDOWS)
    count = max(2, round(seconds / length))
    rows: list[dict[str, Any]] = []
    window = _Window()
    start = time.monotonic()
    last: float | None = None

    def on_token(_token: int) -> None:
        nonlocal window, last
        now = time.monotonic()
        if last is not None:
            window.tokens += 1
            window.seconds += now - last
        last = now
        if now - start >= length * (len(rows) + 1) and window.tokens:
            rows.append(_row(window, now - start))
            window = _Window()
            on_window(len(rows), count)
            # Reading the sensors takes time that is no token's.
            last = time.monotonic()

    while len(rows) < count:
        last = None
        model.generate(prompt, room, on_token, stop=False)
    return summary(seconds, rows[:count])


def _row(window: _Window, at_s: float) -> dict[str, Any]:
    return {
        "at_s": round(at_s, 2),
        "decode_tps": window.tokens / window.seconds,
        "other_cpu_cores": window.began.cores_since(),
        "cpu_mhz": megahertz(),
        "temperature_c": celsius(),
    }


def summary(seconds: float, windows: list[dict[str, Any]]) -> dict[str, Any]:
    """The windows, the rate of the first and the last quarter of them, and whether the machine
    throttled.

    `ratio` is last over first. `throttled` is null where others were at work, since nobody can tell
    then.
    """
    quarter = max(1, len(windows) // 4)
    first = statistics.median(row["decode_tps"] for row in windows[:quarter])
    last = statistics.median(row["decode_tps"] for row in windows[-quarter:])
    told = [row["other_cpu_cores"] for row in windows if row["other_cpu_cores"] is not None]
    busy = bool(told) and statistics.mean(told) > BUSY_CORES
    hot = [row["temperature_c"] for row in windows if row["temperature_c"] is not None]
    return {
        "seconds": seconds,
        "first_tps": first,
        "last_tps": last,
        "ratio": last / first,
        "throttled": None if busy else last < THROTTLED * first,
        "noisy": busy,
        "temperature_c_max": max(hot) if hot else None,
        "windows": windows,
    }


def sparkline(values: Sequence[float]) -> str:
    """One character per value, from nothing to the largest."""
    top = max(values, default=0.0)
    return "".join(_SPARKS[min(7, int(8 * value / top))] for value in values) if top > 0 else ""
