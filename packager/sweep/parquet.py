"""The table of a run as Parquet, with a type for each column: for notebooks and warehouses."""

from __future__ import annotations

import io
from collections.abc import Mapping

from packager.sweep.columns import AXES, NAMES, axis, ordered
from packager.sweep.folder import Run
from packager.sweep.front import Place
from packager.sweep.row import Row

_BYTES = ("artifact_bytes", "peak_memory_bytes", "gpu_memory_bytes")


def parquet(run: Run, places: Mapping[str, Place]) -> bytes:
    """The file. Raises ImportError without pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [("run", pa.int32()), ("id", pa.string()), *((name, pa.string()) for name in AXES)]
    columns += [("status", pa.string()), ("exit_code", pa.int32()), ("front", pa.bool_())]
    columns += [(name, pa.int64() if name in _BYTES else pa.float64()) for name in NAMES]
    columns += [("noisy", pa.bool_()), ("on_device", pa.bool_()), ("gate", pa.bool_())]
    columns += [("machine", pa.string()), ("content_sha256", pa.string()), ("reason", pa.string())]
    schema = pa.schema(columns)
    rows = [_record(run, row, places.get(row.id)) for row in ordered(run)]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()


def _record(run: Run, row: Row, place: Place | None) -> dict[str, object]:
    figures = {name: row.figures.get(name) for name in NAMES}
    figures |= {name: int(value) for name in _BYTES if (value := figures.get(name)) is not None}
    return {
        "run": run.number,
        "id": row.id,
        **{name: str(axis(row.cell.get(name))) or None for name in AXES},
        "status": row.status,
        "exit_code": row.exit_code,
        "front": place.front if place is not None else None,
        **figures,
        "noisy": row.noisy,
        "on_device": row.on_device,
        "gate": row.gate,
        "machine": row.machine.processor if row.machine else None,
        "content_sha256": row.content_sha256,
        "reason": row.reason,
    }
