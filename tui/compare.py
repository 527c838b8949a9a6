"""Packages side by side without a screen: a row per figure, the best one known by name and not by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packager.budgets import quantity
from packager.evidence import telling

_ROWS: tuple[tuple[str, tuple[str, ...], str, int], ...] = (
    ("model files", ("artifact_bytes",), "B", -1),
    ("peak memory", ("telling", "peak_memory_bytes"), "B", -1),
    ("steady memory", ("telling", "steady_memory_bytes"), "B", -1),
    ("decode", ("telling", "decode_tps"), "tok/s", 1),
    ("prefill", ("telling", "prefill_tps"), "tok/s", 1),
    ("first token", ("telling", "ttft_ms"), "ms", -1),
    ("token, median", ("telling", "token_ms_median"), "ms", -1),
    ("token, P95", ("telling", "token_ms_p95"), "ms", -1),
    ("load", ("telling", "load_s"), "s", -1),
)
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("variant", ("variant", "repo_id")),
    ("recipe", ("recipe", "id")),
    ("cache", ("recipe", "kv")),
    ("target", ("target",)),
    ("context", ("workload", "context")),
    ("licence", ("variant", "license")),
    ("weights", ("source", "kind")),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a text per package, and which of them is best (None where nothing can be said)."""

    label: str
    texts: tuple[str, ...]
    best: int | None = None


def rows(manifests: Sequence[dict[str, Any]]) -> list[Row]:
    """What they are, then what was measured; figures of different machines are not ranked."""
    manifests = [{**data, "telling": telling(data)} for data in manifests]
    found = [Row(label, tuple(_word(_at(data, path)) for data in manifests)) for label, path in _WORDS]
    machines = [_at(data, ("telling", "machine")) for data in manifests]
    found.append(Row("measured on", tuple(_machine(machine) for machine in machines)))
    same = all(machine == machines[0] for machine in machines)
    for label, path, unit, better in _ROWS:
        values = [_at(data, path) for data in manifests]
        texts = tuple("–" if value is None else quantity(value, unit) for value in values)
        comparable = same or label == "model files"
        found.append(Row(label, texts, _best(values, better) if comparable else None))
    return found


def _best(values: Sequence[float | None], better: int) -> int | None:
    known = [(better * value, -index) for index, value in enumerate(values) if value is not None]
    if len(known) < 2 or len({value for value, _ in known}) == 1:
        return None
    return -max(known)[1]


def _at(data: dict[str, Any], path: Sequence[str]) -> Any:
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _word(value: Any) -> str:
    return "–" if value is None else str(value)


def _machine(machine: Any) -> str:
    if isinstance(machine, dict):
        return str(machine.get("processor") or "–")
    return _word(machine)
