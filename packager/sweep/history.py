"""The last run beside the one before: what changed, and what became worse beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packager.json_values import JsonObject
from packager.records.figures import BY_NAME
from packager.report.figures import shown
from packager.sweep.folder import Run
from packager.sweep.row import Row, failures

MARGINS: Mapping[str, float] = {
    "artifact_bytes": 0.01,
    "peak_memory_bytes": 0.05,
    "gpu_memory_bytes": 0.05,
    "ttft_ms": 0.20,
    "prefill_tps": 0.30,
    "decode_tps": 0.15,
    "kl_mean": 0.10,
    "tasks_passed": 0.05,
}
"""By how much a figure may be worse before it counts, as a share. Of speed: how far five clean runs
of one package lay apart (docs/measurements/harness.md: decode 12.5 %, first token 19.7 %, prefill
29.3 %). Bytes hardly move, and two of the 38 tasks are no difference (docs/behaviour.md)."""
_LEAST = {"kl_mean": 1e-3, "tasks_passed": 5.0}
"""And by how much at least, in the figure's own unit."""
_ANYWHERE = frozenset({"artifact_bytes", "kl_mean", "tasks_passed"})
"""Figures that are the same on every machine and at every load."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs from the run before. `figure` is empty where it is no figure;
    `because` are inputs that changed as well."""

    id: str
    label: str
    text: str
    regression: bool
    figure: str = ""
    before: float | None = None
    now: float | None = None
    because: tuple[str, ...] = ()

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return asdict(self)


def before(runs: Sequence[Run]) -> Run | None:
    """The run that the last one is compared with: the newest one before it that came to its
    end."""
    ended = [run for run in runs[:-1] if run.file.finished is not None]
    return ended[-1] if ended else None


def compared(runs: Sequence[Run]) -> list[Change]:
    """Every change of the last run, regressions first; empty for the first run."""
    earlier = before(runs)
    if earlier is None:
        return []
    changes = []
    for name, row in runs[-1].rows.items():
        if name in earlier.rows:
            changes += _of_cell(earlier.rows[name], row)
    return sorted(changes, key=lambda change: not change.regression)


def _of_cell(old: Row, new: Row) -> list[Change]:
    label, because = new.of.label, _inputs(old, new)

    def change(text: str, regression: bool, **more: Any) -> Change:
        return Change(new.id, label, text, regression, because=because, **more)

    if old.status != new.status:
        worse = old.status == "done" and new.status == "failed"
        why = f": {new.reason}" if new.reason else ""
        return [change(f"was {old.status}, is {new.status}{why}", worse)]
    if new.status != "done":
        return []
    kept = {one.split(":")[0] for one in old.missed}
    changes = [
        change(f"misses a budget that it kept: {missed}", True)
        for missed in new.missed
        if missed.split(":")[0] not in kept
    ]
    if old.gate and new.gate is False:
        changes.append(change("passed the quality gate, and does not now", True))
    for name in MARGINS:
        if (moved := _figure(name, old, new)) is not None:
            then, now = old.figures[name], new.figures[name]
            changes.append(change(*moved, figure=name, before=then, now=now))
    if not changes and because:
        changes.append(change("the same figures as before", False))
    return changes


def difference(name: str, one: Row, other: Row) -> int | None:
    """1 where the other one's figure is worse beyond the noise, -1 where it is better, 0 within it;
    None where they cannot be compared."""
    mine, theirs = one.figures.get(name), other.figures.get(name)
    if mine is None or theirs is None:
        return None
    if name not in _ANYWHERE and not _comparable(one, other):
        return None
    if name == "peak_memory_bytes" and not _of_one_size(one, other):
        return None
    moved = theirs - mine
    if abs(moved) <= max(MARGINS[name] * abs(mine), _LEAST.get(name, 0.0)):
        return 0
    return 1 if moved * BY_NAME[name].direction < 0 else -1


def _figure(name: str, old: Row, new: Row) -> tuple[str, bool] | None:
    """One figure in words, and whether it is worse; None within the noise, or where the two cannot
    be compared."""
    sign = difference(name, old, new)
    if not sign:
        return None
    figure = BY_NAME[name]
    then, now = old.figures[name], new.figures[name]
    moved, worse = now - then, sign > 0
    word = "worse" if worse else "better"
    share = f" ({moved / then:+.0%})" if then else ""
    values = f"{_shown(then, figure.unit)} before, {_shown(now, figure.unit)} now"
    return f"{figure.label}: {values}{share}, {word}", worse


def _shown(value: float, unit: str) -> str:
    return f"{value:.4f} nats" if unit == "nats" else shown(value, unit)


def _comparable(old: Row, new: Row) -> bool:
    """Whether speed and memory of two rows may be compared: one machine, the same prompt and
    context, no disturbed measurement."""
    return (
        old.machine is not None
        and old.machine == new.machine
        and old.prompt_tokens == new.prompt_tokens
        and old.context == new.context
        and not (old.noisy or new.noisy)
    )


def _of_one_size(old: Row, new: Row) -> bool:
    """Whether the peaks of memory hold a picture and a sound of the same size, as far as both rows
    say that: what takes too long is measured with a smaller one."""
    pairs = ((old.image_tokens, new.image_tokens), (old.audio_seconds, new.audio_seconds))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _inputs(old: Row, new: Row) -> tuple[str, ...]:
    """Inputs that are not what they were, in words."""
    pairs = (
        (f"{new.runtime or 'engine'}", old.engine_version, new.engine_version),
        ("qwen-pack", old.builder, new.builder),
        ("weights", old.revision, new.revision),
        ("the recipe's settings", old.settings_sha256, new.settings_sha256),
        ("machine", _machine(old), _machine(new)),
    )
    return tuple(
        f"{what} {then} → {now}" for what, then, now in pairs if then and now and then != now
    )


def _machine(row: Row) -> str | None:
    machine = row.machine
    if machine is None:
        return None
    return f"{machine.processor}, {machine.cores} cores, {machine.system}"


def over_time(runs: Sequence[Run]) -> list[JsonObject]:
    """Of every run its times, how many cells were built, and failures by kind."""
    return [
        {
            "run": run.number,
            "started": run.file.started,
            "finished": run.file.finished,
            "cells": len(run.rows),
            "done": sum(row.status == "done" for row in run.rows.values()),
            "failures": failures(list(run.rows.values())),
        }
        for run in runs
    ]
