"""Rows of a sweep that nobody has run, and runs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.sweep.cell import Cell
from packager.sweep.folder import Run, RunFile
from packager.sweep.row import Row

MACHINE = {"processor": "P", "architecture": "x86_64", "cores": 2, "system": "Linux"}


EVIL = "\"><script>alert(1)</script>&=cmd|' /C calc'!A0"


def row(name: str = "a", **fields: Any) -> Row:
    """A finished row of a measured package."""
    cell = Cell(f"Qwen/{name}", "plain:b8", "big", "default", 512)
    fields_of: dict[str, Any] = {
        "id": cell.id,
        "cell": cell.to_json(),
        "status": "done",
        "package": f"packages/{cell.id}",
        "machine": MACHINE,
        "prompt_tokens": 256,
        "context": 512,
        "runtime": "plain",
        "gate": True,
        "figures": {
            "artifact_bytes": 1e9,
            "peak_memory_bytes": 2e9,
            "decode_tps": 50.0,
            "ttft_ms": 100.0,
            "kl_mean": 0.01,
        },
    }
    figures = {**fields_of["figures"], **fields.pop("figures", {})}
    return Row.from_json({**fields_of, **fields, "figures": figures})


def run_of(*rows: Row, number: int = 1, finished: str | None = "2026-11-26T20:00:00+00:00") -> Run:
    file = RunFile(plan="p", name="nightly", started="2026-11-26T18:00:00+00:00", finished=finished)
    return Run(number, Path(), file, {one.id: one for one in rows})
