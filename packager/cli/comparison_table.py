"""The table of `build --runtime all`: what is kept first, then what it was compared with, and why
others are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.cli.output import emit_table, narrate

if TYPE_CHECKING:
    from packager.records import Alternative, Contents

_COLUMNS = {
    "artifact_bytes": "size",
    "peak_memory_bytes": "memory",
    "ttft_ms": "first token",
    "prefill_tps": "prefill",
    "decode_tps": "decode",
}


def show_comparison(contents: Contents) -> None:
    """One row per recipe that was built, from the manifest of the one that is kept; the reasons of
    the others on stderr."""
    from packager.records import Alternative

    kept = Alternative(
        recipe=contents.recipe.id,
        artifact_bytes=contents.artifact_bytes,
        measured=contents.measured,
        quality=contents.quality,
        verdicts=contents.verdicts,
    )
    rows = [kept, *(row for row in contents.alternatives if row.reason is None)]
    compared = any(_divergence(row) is not None for row in rows)
    columns = ["", *_COLUMNS.values(), *(["divergence"] if compared else []), ""]
    table = [
        [
            row.recipe or "",
            *_cells(row),
            *([_divergence(row) or ""] if compared else []),
            _note(row, row is kept),
        ]
        for row in rows
    ]
    emit_table("Compared", columns, table, right=columns[1:-1])
    for row in contents.alternatives:
        if row.reason is not None:
            narrate(f"Not built: {row.recipe}: {row.reason}")


def _cells(row: Alternative) -> list[str]:
    from packager.records.figures import BY_NAME
    from packager.report.figures import shown, value_of

    values = {name: value_of(name, row.measured, row.artifact_bytes) for name in _COLUMNS}
    return [
        "" if value is None else shown(value, BY_NAME[name].unit) for name, value in values.items()
    ]


def _divergence(row: Alternative) -> str | None:
    lost = row.quality.kl_mean if row.quality else None
    return None if lost is None else f"{lost:.4f}"


def _note(row: Alternative, kept: bool) -> str:
    missed = [verdict.rule for verdict in row.verdicts if verdict.failed]
    words = ["kept"] if kept else []
    if missed:
        words.append(f"misses {' and '.join(missed)}")
    if row.measured is None:
        words.append("not measured")
    elif row.measured.noisy:
        words.append("noisy")
    return ", ".join(words)
