"""What `probe` prints of a machine and its rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packager.cli.output import say

if TYPE_CHECKING:
    from packager.device.target import Target
    from targets.machine.gpus import Gpu
    from targets.machine.probe import Machine, Measurement


def rows_of(machine: Machine, measurement: Measurement, target: Target) -> list[tuple[str, str]]:
    """What a machine has and how fast it is, as names and texts."""
    from packager.units import human_bytes, human_seconds, human_threads

    limited = " (limited by the control group)" if machine.memory.limited_by == "cgroup" else ""
    return [
        ("processor", machine.cpu),
        ("instruction set", " ".join(machine.isa)),
        ("cores", f"{machine.physical_cores} physical, {machine.usable_cores} processors usable"),
        (
            "memory",
            f"{human_bytes(machine.memory.available)} available of "
            f"{human_bytes(machine.memory.total)}{limited}",
        ),
        ("disk", f"{human_bytes(machine.storage_free)} free"),
        *(("gpu", _gpu(gpu)) for gpu in machine.gpus),
        (
            "bandwidth",
            f"{human_bytes(target.device.bandwidth)}/s with {measurement.engine}, "
            f"{human_threads(measurement.threads)}",
        ),
        (
            "compute",
            f"{target.device.compute / 1e9:.0f} GFLOP/s with {measurement.engine}, "
            f"{human_threads(measurement.threads_batch)}",
        ),
        *(
            (
                f"  {k.engine}",
                f"{k.weights}: {human_bytes(k.bandwidth)}/s, {k.compute / 1e9:.0f} GFLOP/s",
            )
            for k in measurement.kernels
        ),
        (
            "measured",
            f"in {human_seconds(measurement.seconds)}, other programs took "
            f"{measurement.other_load:.0%} of the processors",
        ),
    ]


def say_rows(rows: Sequence[tuple[str, str]], measurement: Measurement) -> None:
    """Print the rows, and what is wrong with the measurement."""
    for key, value in rows:
        say(f"{key:16} {value}")
    for engine, why in measurement.failed.items():
        say(f"{engine} could not be measured: {why}", err=True)
    if measurement.noisy:
        say(
            "NOISY: other programs kept the processors busy, so the true figures are higher. "
            "Measure again when they rest.",
            err=True,
        )


def _gpu(gpu: Gpu) -> str:
    from packager.units import human_bytes

    rate = f", {human_bytes(gpu.bandwidth)}/s by its data sheet" if gpu.bandwidth else ""
    driver = f", driver {gpu.driver}" if gpu.driver else ""
    return (
        f"{gpu.name}, {human_bytes(gpu.free_bytes)} free of "
        f"{human_bytes(gpu.memory_bytes)}{rate}{driver}"
    )
