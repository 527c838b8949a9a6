"""Budgets: the limits of the workload against what was measured, one verdict per line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from packager.device.identity import NOT_YET
from packager.device.target import Device
from packager.need.workload import Workload
from packager.records import Measurement, Verdict
from packager.units import human_bytes

MACHINE_INDEPENDENT = frozenset({"artifact", "memory"})
_AT_LEAST = frozenset({"decode", "documents"})
SET_BY = {
    "min_decode_tps": "decode",
    "max_ttft_ms": "ttft",
    "documents_per_second": "documents",
    "query_ms": "query",
}
"""Fields of a Workload that fail a build where the device misses them, and the rule of each."""


def limits(workload: Workload, device: Device, enforced: Collection[str]) -> list[Verdict]:
    """One open verdict per limit.

    Size and memory are the same on every machine of the device's kind, so missing them always fails
    the build. Speed belongs to the machine that measured it: it fails the build only where the user
    set the limit, so that `enforced` names it, and is reported otherwise.
    """
    memory = min(
        limit
        for limit in (workload.max_memory_bytes, device.all_available_bytes)
        if limit is not None
    )
    rows = [
        ("artifact", workload.max_artifact_bytes, "B"),
        ("memory", memory, "B"),
        ("ttft", workload.max_ttft_ms, "ms"),
        ("decode", workload.min_decode_tps, "tok/s"),
        ("documents", workload.documents_per_second, "/s"),
        ("query", workload.query_ms, "ms"),
    ]
    return [
        Verdict(
            rule=rule,
            limit=limit,
            unit=unit,
            enforced=rule in MACHINE_INDEPENDENT or rule in enforced,
        )
        for rule, limit, unit in rows
        if limit is not None
    ]


def verdicts(
    rows: Sequence[Verdict],
    artifact_bytes: int,
    measured: Measurement | None,
    drafting: int | None = None,
) -> list[Verdict]:
    """The same rows with `measured` and `passed`; `drafting` is the most memory of a process that
    drafts tokens as the package does, None where it does not.

    Both are None, and the verdict open, where nothing was measured on the device itself:
    the size of the files alone is known without it.
    """
    figures = measured if measured is not None and measured.on_device else Measurement()
    values: dict[str, float | None] = {
        "artifact": artifact_bytes,
        "memory": _most(figures, drafting),
        "ttft": figures.first_token_ms,
        "decode": figures.decode_tps,
        "documents": figures.documents_per_second,
        "query": figures.query_ms,
    }
    return [_judged(row, values.get(row.rule)) for row in rows]


def _most(figures: Measurement, drafting: int | None) -> int | None:
    """The most memory of the package; what drafts on a GPU is not measured apart."""
    memory = figures.memory_bytes
    if memory is None or drafting is None or figures.gpu_memory_bytes:
        return memory
    return max(memory, drafting)


def _judged(row: Verdict, value: float | None) -> Verdict:
    if value is None:
        return row.but(measured=None, passed=None)
    at_least = row.rule in _AT_LEAST
    return row.but(measured=value, passed=value >= row.limit if at_least else value <= row.limit)


def sentence(verdict: Verdict) -> str:
    """A verdict in words: `decode: 28.1 tok/s of at least 10 tok/s`, or that it is open."""
    at = "at least" if verdict.rule in _AT_LEAST else "at most"
    limit = f"{at} {quantity(verdict.limit, verdict.unit)}"
    if verdict.passed is None or verdict.measured is None:
        return f"{verdict.rule}: {limit}, {NOT_YET}"
    return f"{verdict.rule}: {quantity(verdict.measured, verdict.unit)} of {limit}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, bytes in readable steps."""
    if unit == "B":
        return human_bytes(value)
    if value < 1:
        return f"{value:.3g} {unit}"
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
