"""Wait until a processor is as cool as a measurement is to begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from packager.errors import ExitCode, NotHere
from packager.events import Event, StageFinished, StageNote, StageStarted

LONGEST_S = 15 * 60.0
_PAUSE_S = 5.0
_STAGE = "cool"


def temperature(read: Callable[[], float | None]) -> float:
    """The temperature that `read` tells; asked once before anything is sent or built that would
    then wait for it. Raises NotHere (exit code 7) where none is told."""
    now = read()
    if now is None:
        raise NotHere(
            "The machine reports no processor temperature.",
            "Measure without --cool.",
            ExitCode.RESOURCE,
        )
    return now


def cool(read: Callable[[], float | None], degrees: float) -> Generator[Event, None, None]:
    """Wait until `read` tells no more than `degrees` Celsius.

    Raises NotHere (exit code 7) where no temperature is told, or it stays hotter for a quarter of
    an hour: what is measured then is the heat of before.
    """
    reported = temperature(read)
    if reported <= degrees:
        return
    started = time.monotonic()
    yield StageStarted(_STAGE, f"Wait for {degrees:g} °C", 1, 1)
    yield StageNote(_STAGE, f"the processor has {reported:.0f} °C")
    now: float | None = reported
    while now is None or now > degrees:
        if time.monotonic() - started > LONGEST_S:
            raise NotHere(
                f"The processor still has {reported:.0f} °C after {LONGEST_S / 60:.0f} minutes, "
                f"and --cool asks for {degrees:g} °C.",
                "Stop other programs on it, cool it, or ask for a higher temperature.",
                ExitCode.RESOURCE,
            )
        time.sleep(_PAUSE_S)
        now = read()
        if now is not None and abs(now - reported) >= 1:
            reported = now
            yield StageNote(_STAGE, f"the processor has {now:.0f} °C")
    yield StageFinished(_STAGE, time.monotonic() - started, False, f"{now:.0f} °C")
