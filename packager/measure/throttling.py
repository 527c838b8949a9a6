"""A long run that shows throttling: the decode rate per window of time, with clock and
temperature."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packager.measure.gauges.load import Mark
from packager.measure.gauges.machine import Gauges, ThisMachine
from packager.measure.noise import BUSY_CORES
from packager.records import Sustained
from packager.records.measurement import Window
from packager.session import Session, Stamped

WINDOWS = 24
"""Windows of a run, none of which is shorter than LEAST_S."""

LEAST_S = 1.0

THROTTLED = 0.9
"""A last rate below this share of the first, with nobody else at work, is throttling."""

_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class _Counting:
    began: Mark
    tokens: int = 0
    seconds: float = 0.0


def run(
    model: Session,
    prompt: Sequence[int],
    room: int,
    seconds: float,
    on_window: Callable[[int, int], None],
    gauges: Gauges | None = None,
) -> Sustained:
    """Decode for so many seconds, `room` tokens behind the prompt at a time; see `summary`.

    The time in which a prompt is read belongs to no rate. `gauges` are those of the machine that
    computes, this one by default.
    """
    length = max(LEAST_S, seconds / WINDOWS)
    count = max(2, round(seconds / length))
    rows: list[Window] = []
    seen = gauges or ThisMachine()
    own = model if isinstance(model, Stamped) else None
    window = _Counting(seen.mark())
    start = time.monotonic()
    last: float | None = None

    def on_token(_token: int) -> None:
        nonlocal window, last
        now = own.stamp() if own else time.monotonic()
        if last is not None:
            window.tokens += 1
            window.seconds += now - last
        last = now
        spent = time.monotonic() - start
        if spent >= length * (len(rows) + 1) and window.tokens:
            rows.append(_row(window, spent, seen))
            window = _Counting(seen.mark())
            on_window(len(rows), count)
            # Reading the sensors takes time that is no token's; a device's stamps have none of it.
            last = last if own else time.monotonic()

    while len(rows) < count:
        last = None
        model.generate(prompt, room, on_token, stop=False)
    return summary(seconds, rows[:count])


def _row(window: _Counting, at_s: float, gauges: Gauges) -> Window:
    return Window(
        at_s=round(at_s, 2),
        decode_tps=window.tokens / window.seconds,
        other_cpu_cores=window.began.cores_since(),
        cpu_mhz=gauges.megahertz(),
        temperature_c=gauges.celsius(),
    )


def summary(seconds: float, windows: Sequence[Window]) -> Sustained:
    """The windows, the rate of the first and the last quarter of them, and whether the machine
    throttled.

    `ratio` is last over first. `throttled` is None where other programs were at work, since nothing
    can be said then.
    """
    quarter = max(1, len(windows) // 4)
    first = statistics.median(window.decode_tps for window in windows[:quarter])
    last = statistics.median(window.decode_tps for window in windows[-quarter:])
    others = [w.other_cpu_cores for w in windows if w.other_cpu_cores is not None]
    busy = bool(others) and statistics.mean(others) > BUSY_CORES
    hot = [window.temperature_c for window in windows if window.temperature_c is not None]
    return Sustained(
        seconds=seconds,
        first_tps=first,
        last_tps=last,
        ratio=last / first,
        throttled=None if busy else last < THROTTLED * first,
        noisy=busy,
        temperature_c_max=max(hot) if hot else None,
        windows=tuple(windows),
    )


def sparkline(values: Sequence[float]) -> str:
    """One character per value, from nothing to the largest."""
    top = max(values, default=0.0)
    return "".join(_SPARKS[min(7, int(8 * value / top))] for value in values) if top > 0 else ""
