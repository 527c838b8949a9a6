"""The result of a run: one table, in a terminal and as CSV, JSON and HTML; a plot per target."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from packager.escapes import csv_cell
from packager.files import write_atomically, write_json
from packager.json_values import JsonObject
from packager.records.figures import BY_NAME
from packager.report.figures import shown
from packager.sweep.cell import DEFAULT
from packager.sweep.chart import Chart, Point, chart
from packager.sweep.columns import AXES, NAMES, STATUS, axis, ordered
from packager.sweep.folder import Folder, Run, asked_of
from packager.sweep.front import Place, fronts
from packager.sweep.history import Change, compared, over_time
from packager.sweep.plan_file import SweepPlan
from packager.sweep.row import Row, failures
from packager.sweep.standing import standing
from packager.sweep.table import Table

_SHOWN = ("artifact_bytes", "peak_memory_bytes", "ttft_ms", "prefill_tps", "decode_tps", "kl_mean")


def outcome(row: Row) -> str:
    """The row in a few words, for the last column and for the terminal."""
    if row.status == "done":
        words = [_dropped(row), _gate(row), *(f"misses {one}" for one in row.missed)]
        words += ["noisy"] if row.noisy else []
        words += [f"not measured: {row.not_measured}"] if row.not_measured else []
        return ", ".join(word for word in words if word) or "built"
    rung = f" at the rung {row.rung!r}" if row.rung else ""
    return f"{row.status}{rung}: {row.reason or ''}".rstrip(": ")


def _dropped(row: Row) -> str:
    return "" if row.package is not None else "manifest only"


def _gate(row: Row) -> str:
    return "" if row.gate is not False else "let through the quality gate"


def table(run: Run, places: Mapping[str, Place] | None = None) -> Table:
    """The table of a run; with `places` a column says what is on the Pareto front."""
    titles = ["cell", *(BY_NAME[name].label for name in _SHOWN)]
    titles += ["front"] if places is not None else []
    cells, numbers = [], []
    for row in ordered(run):
        values = [row.figures.get(name) for name in _SHOWN]
        texts = [_text(name, value) for name, value in zip(_SHOWN, values, strict=True)]
        mark: list[str] = []
        if places is not None:
            place = places.get(row.id)
            mark = [_FRONT[place.front if place else None]]
        cells.append((row.of.label, *texts, *mark, outcome(row)))
        numbers.append((None, *values, *(None for _ in mark), None))
    return Table((*titles, "outcome"), tuple(cells), tuple(numbers))


_FRONT = {True: "yes", False: "no", None: ""}
"""Whether a cell is on the Pareto front; not known for one without figures."""


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if name == "kl_mean" else shown(value, BY_NAME[name].unit)


def sentences(run: Run, changes: Sequence[Change]) -> Iterator[str]:
    """What a reader of the table must know."""
    rows = list(run.rows.values())
    count = {status: sum(row.status == status for row in rows) for status in STATUS}
    words = [f"{count['done']} of {len(rows)} cells were built"]
    words += [f"{count['dropped']} dropped by pruning"] if count["dropped"] else []
    words += [f"{count['refused']} cannot be built"] if count["refused"] else []
    kinds = ", ".join(f"{number} {kind}" for kind, number in failures(rows).items())
    words += [f"{count['failed']} failed ({kinds})"] if count["failed"] else []
    yield f"{', '.join(words)}."
    machines = {row.machine.processor for row in rows if row.machine}
    if len(machines) > 1:
        yield (
            f"Measured on {len(machines)} different machines: their speed and memory are not "
            "ranked against each other."
        )
    worse = [change for change in changes if change.regression]
    if changes:
        yield f"{len(worse)} figures or outcomes are worse than in the run before."
    for change in worse:
        because = f" Changed: {'; '.join(change.because)}." if change.because else ""
        yield f"{change.label}: {change.text}.{because}"


def as_dict(
    run: Run, changes: Sequence[Change] = (), places: Mapping[str, Place] | None = None
) -> JsonObject:
    """JSON form of a run."""
    known = places or {}
    return {
        "run": run.number,
        "name": run.file.name,
        "started": run.file.started,
        "finished": run.file.finished,
        "failures": failures(list(run.rows.values())),
        "cells": [{**row.to_json(), **_standing(known.get(row.id))} for row in ordered(run)],
        "changes": [change.as_dict() for change in changes],
        "regressions": sum(change.regression for change in changes),
    }


def _standing(place: Place | None) -> JsonObject:
    if place is None:
        return {"on_front": None, "beaten_by": [], "quality_by": None}
    return {
        "on_front": place.front,
        "beaten_by": list(place.beaten_by),
        "quality_by": place.quality_by,
    }


def as_csv(run: Run, places: Mapping[str, Place]) -> str:
    """One line per cell, figures as plain numbers. Texts that a spreadsheet would take for a
    formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    before, last = AXES[:-1], AXES[-1]
    writer.writerow(["id", *before, "status", "front", *NAMES, "machine", "reason", last])
    for row in ordered(run):
        cell = row.cell
        place = places.get(row.id)
        front = "" if place is None or place.front is None else str(place.front).lower()
        axes = [axis(cell.get(name)) for name in before]
        figures = [_number(row.figures.get(name)) for name in NAMES]
        machine = row.machine.processor if row.machine else ""
        line = [row.id, *axes, row.status, front, *figures, machine, row.reason or ""]
        line.append(axis(cell.get(last)))
        writer.writerow([_no_formula(value) for value in line])
    return out.getvalue()


def _number(value: float | None) -> float | int | str:
    """A figure for a spreadsheet: bytes without a fraction."""
    if value is None:
        return ""
    return int(value) if value == int(value) else value


def _no_formula(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value


def plots(run: Run, places: Mapping[str, Place]) -> dict[str, Chart]:
    """The Pareto plot of every target, by its name. Points of other machines than the first are
    left out: they are not compared."""
    by_target: dict[str, list[Row]] = {}
    for row in ordered(run):
        if {"peak_memory_bytes", "decode_tps"} <= set(row.figures):
            by_target.setdefault(row.of.target, []).append(row)
    return {
        target: chart(
            f"{Path(target).stem}, on {rows[0].machine.processor if rows[0].machine else '?'}",
            [_point(row, places) for row in rows if row.machine == rows[0].machine],
        )
        for target, rows in by_target.items()
    }


def _point(row: Row, places: Mapping[str, Place]) -> Point:
    cell, place = row.of, places.get(row.id)
    words = [cell.short, *([cell.adapters] if cell.lora else []), cell.recipe_id]
    words += [str(cell.context)] if cell.context else []
    words += [] if cell.profile == DEFAULT else [Path(cell.profile).stem]
    return Point(
        " ".join(words),
        row.figures["peak_memory_bytes"],
        row.figures["decode_tps"],
        bool(place and place.front),
    )


def write(folder: Folder, runs: Sequence[Run], plan: SweepPlan | None = None) -> list[Path]:
    """Write everything of the last run into `report/`; returns the files."""
    from packager.sweep.html import page
    from packager.sweep.route import routes
    from packager.sweep.svg import svg

    run, changes = runs[-1], compared(runs)
    asked = asked_of(plan) if plan is not None else folder.asked(run)
    pairs = standing(runs, asked.compare)
    places = fronts(folder, run.rows.values())
    out = folder.root / "report"
    out.mkdir(exist_ok=True)
    charts = plots(run, places)
    lines = [*sentences(run, changes), *(pair.sentence() for pair in pairs)]
    pictures = {target: svg(one) for target, one in charts.items()}
    data = {
        "schema": "qwen-pack/sweep-report/1",
        **as_dict(run, changes, places),
        "runs": over_time(runs),
        "comparisons": [pair.as_dict() for pair in pairs],
    }
    texts = {
        "table.csv": as_csv(run, places),
        "index.html": page(run, table(run, places), lines, pictures),
        **{f"pareto-{number}.svg": text for number, text in enumerate(pictures.values(), 1)},
    }
    for stale in (*out.glob("pareto-*.*"), *out.glob("table.*")):
        stale.unlink()
    files = {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    files |= _with_extra(run, places, charts)
    for name, content in files.items():
        write_atomically(out / name, content)
    write_json(out / "sweep.json", data)
    write_json(out / "route.json", routes(folder, run, asked))
    return [out / name for name in (*files, "sweep.json", "route.json")]


def _with_extra(
    run: Run, places: Mapping[str, Place], charts: Mapping[str, Chart]
) -> dict[str, bytes]:
    """What the packages of the extra `report` write, as far as they are installed."""
    from packager.sweep.parquet import parquet
    from packager.sweep.png import png

    files: dict[str, bytes] = {}
    with suppress(ImportError):
        files["table.parquet"] = parquet(run, places)
    with suppress(ImportError):
        for number, one in enumerate(charts.values(), 1):
            files[f"pareto-{number}.png"] = png(one)
    return files
