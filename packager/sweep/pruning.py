"""Successive halving: of the cells of a target the worse half goes at each rung, the cheap figures
first.

* `size`: before anything is built, by what is predicted.
* `gate`: after conversion and quality gate, by bytes and divergence as they are.
* `speed`: after the measurement; here only as many stay as were asked for.

What is dropped has a row that says at which rung and why. Every rung is worked out anew from all
cells, so that a sweep that was interrupted comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

from packager.events import Event
from packager.pipeline import run as pipeline
from packager.records import Quality
from packager.sweep.building import Work, guarded
from packager.sweep.events import CellFinished, SweepEvent, Told
from packager.sweep.folder import Run
from packager.sweep.keeping import Keeper
from packager.sweep.matrix import Planned
from packager.sweep.ranking import counted, goes_on, ranked
from packager.sweep.row import Row, Stages, not_done

Values = Mapping[str, float | None]
Going = Generator[Event | SweepEvent, None, tuple[Planned, ...]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What conversion and gate say of a cell: mean divergence in nats, None where there is none,
    and bytes of the model files."""

    divergence: float | None
    size: int


Judge = Callable[
    [Keeper, tuple[Planned, ...]],
    Generator[Event | SweepEvent, None, dict[str, "Judged | Row"]],
]


def prune(work: Work, current: Run, keeper: Keeper, left: Sequence[Planned], judge: Judge) -> Going:
    """The rungs before the measurement; returns what is left to build and measure. `judge` converts
    cells and lets them through the gate."""
    going = work.matrix.possible
    values: dict[str, Values] = {planned.cell.id: _predicted(planned) for planned in going}
    going = yield from _rung(work, current, going, values, "size")
    known = {
        planned.cell.id: _known(planned, current.rows.get(planned.cell.id)) for planned in going
    }
    todo = tuple(planned for planned in going if known[planned.cell.id] is None)
    answers = yield from judge(keeper, todo)
    judged: dict[str, Values] = {name: value for name, value in known.items() if value is not None}
    for planned in todo:
        answer = answers[planned.cell.id]
        if isinstance(answer, Row):
            work.folder.add(current, answer)
            yield CellFinished(planned.cell, answer)
        else:
            more = {"size": answer.size, "divergence": answer.divergence}
            judged[planned.cell.id] = {**_predicted(planned), **more}
    going = tuple(planned for planned in going if planned.cell.id in judged)
    going = yield from _rung(work, current, going, _on_one_scale(going, judged), "gate")
    wanted = {planned.cell.id for planned in left}
    return tuple(planned for planned in going if planned.cell.id in wanted)


def last(work: Work, current: Run, keeper: Keeper) -> Generator[Event | SweepEvent, None, None]:
    """The rung after the measurement: only as many of a target stay as were asked for; of the
    others the manifest is kept. What misses an enforced budget goes before all that does not."""
    rows = current.rows
    going = tuple(
        planned for planned in work.matrix.possible if _is_done(rows.get(planned.cell.id))
    )
    values = {planned.cell.id: _measured(planned, rows[planned.cell.id]) for planned in going}
    scaled = _on_one_scale(going, values)
    missing = {planned.cell.id for planned in going if rows[planned.cell.id].missed}
    dropped = yield from _losers(work, going, scaled, "speed", missing, final=True)
    for planned, why in dropped:
        row = rows[planned.cell.id]
        keeper.drop(row)
        kept = next(iter(keeper.changed()), row)
        changed = kept.but(status="dropped", rung="speed", reason=why)
        work.folder.add(current, changed)
        yield CellFinished(planned.cell, changed)


def _is_done(row: Row | None) -> bool:
    return row is not None and row.status == "done"


def _rung(
    work: Work, current: Run, going: Sequence[Planned], values: Mapping[str, Values], rung: str
) -> Going:
    """Those that go on; the others get their row, unless they have one."""
    dropped = yield from _losers(work, going, values, rung)
    for planned, why in dropped:
        before = current.rows.get(planned.cell.id)
        if before is None or before.status != "dropped":
            row = not_done(planned.cell, "dropped", why, rung=rung)
            row = row.but(figures=_built(values[planned.cell.id])) if rung == "gate" else row
            work.folder.add(current, row)
            yield CellFinished(planned.cell, row)
    gone = {planned.cell.id for planned, _ in dropped}
    return tuple(planned for planned in going if planned.cell.id not in gone)


def _losers(
    work: Work,
    going: Sequence[Planned],
    values: Mapping[str, Values],
    rung: str,
    behind: Collection[str] = (),
    final: bool = False,
) -> Generator[SweepEvent, None, list[tuple[Planned, str]]]:
    """Of each target the cells that do not go on, each with the reason; those `behind` go
    first."""
    keep = work.plan.keep or 1
    by_id = {planned.cell.id: planned for planned in going}
    dropped = []
    for target in dict.fromkeys(planned.cell.target for planned in going):
        ids = [planned.cell.id for planned in going if planned.cell.target == target]
        stay = keep if final else goes_on(len(ids), keep)
        by = counted(work.plan.by, [values[name] for name in ids])
        if len(ids) <= stay:
            continue
        if not by:
            yield Told(f"{target}: nothing to rank by at the rung {rung!r}, so all cells continue.")
            continue
        for row in ranked(ids, [values[name] for name in ids], by, behind)[stay:]:
            why = f"{stay} of {len(ids)} continue, this is number {row.place}: {row.why}"
            dropped.append((by_id[row.id], why))
    return dropped


def judge_here(work: Work) -> Judge:
    """Convert and judge cells one after the other, in this process."""

    def judge(
        keeper: Keeper, todo: tuple[Planned, ...]
    ) -> Generator[Event | SweepEvent, None, dict[str, Judged | Row]]:
        outcomes: dict[str, Judged | Row] = {}
        for planned in todo:
            yield Told(f"{planned.cell.label}: conversion and quality gate")
            outcomes[planned.cell.id] = yield from _judged(work, keeper, planned)
        return outcomes

    return judge


def _judged(
    work: Work, keeper: Keeper, one: Planned
) -> Generator[Event | SweepEvent, None, Judged | Row]:
    stages = Stages()

    def start() -> Generator[Event, None, tuple[Quality, int]]:
        keeper.make_room(one)
        return pipeline.judge(work.planned(one), work.cache)

    outcome = yield from guarded(work.folder, one, stages, start)
    if isinstance(outcome, Row):
        return outcome
    quality, size = outcome
    return Judged(quality.kl_mean, size)


def _known(one: Planned, row: Row | None) -> Values | None:
    """What a row of this run says of a cell that was judged before; None where none does."""
    if row is not None and (row.status == "done" or row.rung in ("gate", "speed")):
        known = _measured(one, row)
        return {**_predicted(one), "size": known["size"], "divergence": known["divergence"]}
    return None


def _built(values: Values) -> dict[str, float]:
    """The figures of a cell that was converted and judged, as rows name them."""
    names = {"size": "artifact_bytes", "divergence": "kl_mean"}
    known = {name: values.get(key) for key, name in names.items()}
    return {name: value for name, value in known.items() if value is not None}


def _predicted(one: Planned) -> dict[str, float | None]:
    return {
        "quality": one.quality,
        "memory": one.memory_bytes,
        "size": one.artifact_bytes,
        "speed": one.decode_tps,
    }


def _measured(one: Planned, row: Row) -> dict[str, float | None]:
    """The figures of a row, with what was predicted where it has none."""
    figures = row.figures
    return {
        "quality": one.quality,
        "memory": figures.get("peak_memory_bytes"),
        "size": figures.get("artifact_bytes"),
        "speed": figures.get("decode_tps"),
        "divergence": figures.get("kl_mean"),
    }


def _on_one_scale(going: Sequence[Planned], values: Mapping[str, Values]) -> dict[str, Values]:
    """The same with a quality that can be compared: the divergence from the unquantized model among
    cells of one checkpoint, else published scores less what the recipe is known to lose."""
    scaled: dict[str, Values] = dict(values)
    for target in dict.fromkeys(planned.cell.target for planned in going):
        ids = [planned.cell.id for planned in going if planned.cell.target == target]
        checkpoints = {planned.cell.weights for planned in going if planned.cell.target == target}
        lost = {name: values[name].get("divergence") for name in ids}
        if len(checkpoints) == 1 and None not in lost.values():
            scaled |= {name: {**values[name], "quality": -(lost[name] or 0.0)} for name in ids}
    return scaled
