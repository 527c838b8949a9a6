"""What `qwen-pack doctor --engines` does: every installed engine tried on this machine, all at
once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from packager.cli.output import narrate, printable, say
from packager.errors import PackError
from packager.json_values import JsonObject, at, object_or_empty
from packager.runtime import Laddered, Runtime

if TYPE_CHECKING:
    from packager.engine_check.outcome import Start


def examine(again: bool = False) -> list[JsonObject]:
    """A row per installed runtime that can be tried; see docs/engines.md."""
    from targets import registry

    adapters = [
        adapter for adapter in map(_adapter, registry.runtime_names()) if adapter is not None
    ]
    with ThreadPoolExecutor(max(1, len(adapters))) as pool:
        return list(pool.map(lambda adapter: _row(adapter, again), adapters))


def _adapter(name: str) -> Runtime | None:
    """A runtime that is installed and can be tried."""
    from packager.engines import missing_engine
    from targets import registry

    try:
        adapter = registry.runtime(name)
    except PackError:
        return None
    return adapter if isinstance(adapter, Laddered) and missing_engine(adapter) is None else None


def _row(runtime: Runtime, again: bool) -> JsonObject:
    from packager.engine_check import identity
    from packager.pipeline import climb

    assert isinstance(runtime, Laddered)
    ladder = runtime.ladder()
    began = time.monotonic()
    before = [] if again else climb.checked(runtime)
    chosen: Start | None = None
    error: JsonObject | None = None
    work = climb.climb(runtime, again=again)
    try:
        while True:
            next(work)
    except StopIteration as stop:
        chosen = stop.value
    except PackError as problem:
        error = {
            "message": problem.message,
            "hint": problem.hint,
            "exit_code": int(problem.exit_code),
        }
    return {
        "name": runtime.name,
        "engine": identity.versions(ladder),
        "processor": identity.processor(),
        "rung": None if chosen is None else chosen.rung.name,
        "works": chosen is not None,
        "settings": None if chosen is None else chosen.settings(),
        "outcomes": [outcome.as_dict() for outcome in climb.checked(runtime)],
        "known_before": bool(before),
        "seconds": time.monotonic() - began,
        "error": error,
    }


def show(rows: list[JsonObject]) -> None:
    """The rows for a person: one line per engine on stdout, the sentence for one that needs another
    way on stderr."""
    for row in rows:
        when = "tried before" if row["known_before"] else f"tried in {row['seconds']:.0f} s"
        ways = (
            "right as installed"
            if row["works"] and row["settings"] is None
            else f"right as {row['rung']!r}"
        )
        say(
            f"{row['name']:16} {ways if row['works'] else 'NOT RIGHT'} on "
            f"{printable(at(row, 'processor', str))}, {when}"
        )
        if settings := object_or_empty(row, "settings"):
            narrate(printable(at(settings, "reason", str)))
        if error := object_or_empty(row, "error"):
            narrate(printable(f"{error['message']} {error['hint']}"))
