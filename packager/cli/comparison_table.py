"""The table of `build --runtime all`: what is kept first, then what it was compared with, and why
others are not there."""

from __future__ import annotations

from typing import Any

from packager.cli.output import emit_table, narrate

_FIGURES = (
    ("size", "artifact_bytes", "B"),
    ("memory", "peak_memory_bytes", "B"),
    ("first token", "ttft_ms", "ms"),
    ("prefill", "prefill_tps", "tok/s"),
    ("decode", "decode_tps", "tok/s"),
)


def show_comparison(data: dict[str, Any]) -> None:
    """One row per recipe that was built, from the manifest of the one that is kept; the reasons of
    the others on stderr."""
    kept = {**data, "recipe": data["recipe"]["id"], "reason": None}
    rows = [kept, *(row for row in data["alternatives"] if row["reason"] is None)]
    compared = any(_divergence(row) is not None for row in rows)
    columns = ["", *(label for label, _, _ in _FIGURES), *(["divergence"] if compared else []), ""]
    table = [
        [
            row["recipe"],
            *_cells(row),
            *([_divergence(row) or ""] if compared else []),
            _note(row, row is kept),
        ]
        for row in rows
    ]
    emit_table("Compared", columns, table, right=columns[1:-1])
    for row in data["alternatives"]:
        if row["reason"] is not None:
            narrate(f"Not built: {row['recipe']}: {row['reason']}")


def _cells(row: dict[str, Any]) -> list[str]:
    from packager.report.budgets import quantity

    figures = {**(row["measured"] or {}), "artifact_bytes": row["artifact_bytes"]}
    return [
        "" if figures.get(name) is None else quantity(figures[name], unit)
        for _, name, unit in _FIGURES
    ]


def _divergence(row: dict[str, Any]) -> str | None:
    found = (row["quality"] or {}).get("kl_mean")
    return None if found is None else f"{found:.4f}"


def _note(row: dict[str, Any], kept: bool) -> str:
    missed = [
        verdict["rule"]
        for verdict in row["verdicts"]
        if verdict["passed"] is False and verdict["enforced"]
    ]
    words = [
        *(["kept"] if kept else []),
        *([f"misses {' and '.join(missed)}"] if missed else []),
        *(
            ["not measured"]
            if row["measured"] is None
            else ["noisy"]
            if row["measured"]["noisy"]
            else []
        ),
    ]
    return ", ".join(words)
