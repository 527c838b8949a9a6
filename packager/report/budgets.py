"""Budgets: the limits of the workload against what was measured, one verdict per line."""

from __future__ import annotations

from typing import Any

from packager.device.identity import NOT_YET
from packager.plan.plan import Plan
from packager.report.evidence import on_device
from packager.units import human_bytes

MACHINE_INDEPENDENT = frozenset({"artifact", "memory"})
_FIGURES = {
    "memory": ("gpu_memory_bytes", "peak_memory_bytes"),
    "ttft": ("ttft_ms",),
    "decode": ("decode_tps",),
}
"""The figures of a measurement that a rule looks at, the first that is there; the artifact has its
size without one."""


def limits(plan: Plan) -> list[dict[str, Any]]:
    """One row per limit: rule, limit, unit, enforced.

    Size and memory are the same on every machine of the device's kind, so missing them always fails
    the build. Speed belongs to the machine that measured it: it fails the build only where the user
    set the limit, and is reported otherwise.
    """
    workload, device = plan.workload, plan.target.device
    memory = min(
        limit for limit in (workload.max_memory_bytes, device.available_bytes) if limit is not None
    )
    rows = [
        ("artifact", workload.max_artifact_bytes, "B"),
        ("memory", memory, "B"),
        ("ttft", workload.max_ttft_ms, "ms"),
        ("decode", workload.min_decode_tps, "tok/s"),
    ]
    return [
        {
            "rule": rule,
            "limit": limit,
            "unit": unit,
            "enforced": rule in MACHINE_INDEPENDENT or rule in plan.enforced,
        }
        for rule, limit, unit in rows
        if limit is not None
    ]


def verdicts(
    rows: list[dict[str, Any]], artifact_bytes: int, measured: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The same rows with `measured` and `passed`.

    Both are None, and the verdict open, where nothing was measured, or elsewhere than on the device
    (`measured.place`): the size of the files alone is known without it.
    """
    figures = measured if measured is not None and on_device(measured) else {}
    found = []
    for row in rows:
        value = (
            artifact_bytes
            if row["rule"] == "artifact"
            else _first(figures, _FIGURES.get(row["rule"], ()))
        )
        at_least = row["rule"] == "decode"
        passed = (
            None if value is None else value >= row["limit"] if at_least else value <= row["limit"]
        )
        found.append({**row, "measured": value, "passed": passed})
    return found


def _first(figures: dict[str, Any], names: tuple[str, ...]) -> float | None:
    return next((figures[name] for name in names if figures.get(name) is not None), None)


def sentence(row: dict[str, Any]) -> str:
    """A verdict in words: `decode: 28.1 tok/s of at least 10 tok/s`, or that it is open."""
    at = "at least" if row["rule"] == "decode" else "at most"
    limit = f"{at} {quantity(row['limit'], row['unit'])}"
    if row.get("passed") is None or row.get("measured") is None:
        return f"{row['rule']}: {limit}, {NOT_YET}"
    return f"{row['rule']}: {quantity(row['measured'], row['unit'])} of {limit}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, bytes in readable steps."""
    return human_bytes(value) if unit == "B" else f"{value:,.{0 if value >= 100 else 1}f} {unit}"
