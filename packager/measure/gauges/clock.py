"""The processor's clock and temperature, as its own sensors tell them."""

from __future__ import annotations

_PROCESSOR_SENSORS = (
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "cpu-thermal",
    "soc_thermal",
    "acpitz",
)


def megahertz() -> float | None:
    """The clock now, the mean over the cores; a virtual machine often tells a constant."""
    # Late: only measurements need it.
    import psutil

    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError, RuntimeError, ValueError):
        return None
    return (
        None if frequency is None or not frequency.current else round(float(frequency.current), 1)
    )


def celsius() -> float | None:
    """The hottest of the processor's sensors."""
    # Late: only measurements need it.
    import psutil

    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError, RuntimeError, ValueError):
        return None
    return hottest({name: [row.current for row in rows] for name, rows in sensors.items()})


def hottest(sensors: dict[str, list[float | None]]) -> float | None:
    """The highest reading of the processor's own sensors, by their kernel names; of no disk and no
    radio."""
    readings = [
        value
        for name in _PROCESSOR_SENSORS
        for value in sensors.get(name, [])
        if value is not None and 0 < value < 150
    ]
    return max(readings) if readings else None
