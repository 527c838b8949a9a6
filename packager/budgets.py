"""Budgets: the limits of the workload against what was measured, one verdict per line."""

from __future__ import annotations

from typing import Any

from packager.plan import Plan
from packager.units import human_bytes

MACHINE_INDEPENDENT = frozenset({"artifact", "memory"})


def verdicts(plan: Plan, artifact_bytes: int, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per limit: rule, limit, measured, unit, passed, enforced.

    Size and memory are the same on every machine, so missing them always fails the build. Speed belongs to the
    machine that measured it: it fails the build only where the user set the limit, and is reported otherwise.
    """
    workload, device = plan.workload, plan.target.device
    memory_limit = min(limit for limit in (workload.max_memory_bytes, device.available_bytes) if limit is not None)
    rows = [
        ("artifact", workload.max_artifact_bytes, artifact_bytes, "B", artifact_bytes <= (workload.max_artifact_bytes or artifact_bytes)),
        ("memory", memory_limit, measured["peak_memory_bytes"], "B", measured["peak_memory_bytes"] <= memory_limit),
        ("ttft", workload.max_ttft_ms, measured["ttft_ms"], "ms", measured["ttft_ms"] <= (workload.max_ttft_ms or measured["ttft_ms"])),
        ("decode", workload.min_decode_tps, measured["decode_tps"], "tok/s", measured["decode_tps"] >= (workload.min_decode_tps or 0)),
    ]
    return [
        {
            "rule": rule,
            "limit": limit,
            "measured": value,
            "unit": unit,
            "passed": passed,
            "enforced": rule in MACHINE_INDEPENDENT or rule in plan.enforced,
        }
        for rule, limit, value, unit, passed in rows
        if limit is not None
    ]


def sentence(row: dict[str, Any]) -> str:
    """A verdict in words: `decode: 28.1 tok/s of at least 10 tok/s`."""
    at = "at least" if row["rule"] == "decode" else "at most"
    return f"{row['rule']}: {quantity(row['measured'], row['unit'])} of {at} {quantity(row['limit'], row['unit'])}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, bytes in readable steps."""
    return human_bytes(value) if unit == "B" else f"{value:,.{0 if value >= 100 else 1}f} {unit}"
