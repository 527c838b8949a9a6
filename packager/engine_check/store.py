"""The outcomes of engines on this machine, kept in the cache: a rung that is known to be dead is
not asked again."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packager.engine_check import identity
from packager.engine_check.outcome import Outcome
from packager.errors import PackError
from packager.files import write_json
from packager.foreign import bounded_bytes, parse_json
from packager.limits import SETTINGS_BYTES
from packager.paths import cache_dir, made_cache_dir
from packager.runtime import Ladder, Runtime

FOLDER = "QWEN_PACK_ENGINES"
"""The variable that names another folder for them than the one in the cache."""

_MOST_WORKS = 200


def path(runtime: Runtime, key: str) -> Path:
    """The file of one engine."""
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else cache_dir() / "engines"
    plain = "".join(char if char.isalnum() or char in ".-" else "_" for char in runtime.name)
    return folder / f"{plain}-{key}.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an engine here: the check's outcomes by rung, and by piece of work the rungs
    on which it died there."""

    checked: dict[str, Outcome] = field(default_factory=dict)
    deaths: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    def of(self, rung: str, work: str) -> Outcome | None:
        """The outcome of a rung for a piece of work: a death in it, else that of the check; None
        where it was not tried."""
        return self.deaths.get(work, {}).get(rung) or self.checked.get(rung)


def read(runtime: Runtime, key: str) -> Known:
    """What is known; nothing where there is no file or one that nobody here has written."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, PackError):
        file = path(runtime, key)
        data = parse_json(bounded_bytes(file, SETTINGS_BYTES), str(file))
        deaths = {work: _by_rung(rows) for work, rows in data["deaths"].items()}
        return Known(_by_rung(data["checked"]), deaths)
    return Known()


def keep(runtime: Runtime, ladder: Ladder, key: str, outcome: Outcome, work: str = "") -> Known:
    """Add an outcome of the check, or a death in a piece of `work`, in place of what was known of
    that rung.

    A death in one model's work says nothing of other models: it may be that model's alone. A cache
    that may only be read keeps nothing.
    """
    known = read(runtime, key)
    if work:
        deaths = {name: rows for name, rows in known.deaths.items() if name != work}
        deaths = dict(list(deaths.items())[-_MOST_WORKS:])
        known = Known(
            known.checked, {**deaths, work: {**known.deaths.get(work, {}), outcome.rung: outcome}}
        )
    else:
        known = Known({**known.checked, outcome.rung: outcome}, known.deaths)
    file = path(runtime, key)
    with contextlib.suppress(PermissionError):
        if not os.environ.get(FOLDER):
            made_cache_dir()
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            **identity.described(runtime, ladder),
            "changed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        deaths_rows = {
            name: [row.as_dict() for row in rows.values()] for name, rows in known.deaths.items()
        }
        write_json(
            file,
            {
                **facts,
                "checked": [row.as_dict() for row in known.checked.values()],
                "deaths": deaths_rows,
            },
        )
    return known


def _by_rung(rows: list[Any]) -> dict[str, Outcome]:
    return {row.rung: row for row in (Outcome.from_dict(data) for data in rows)}


def forget(runtime: Runtime, key: str) -> None:
    """Remove what is known of an engine, so that it is tried again."""
    with contextlib.suppress(FileNotFoundError):
        path(runtime, key).unlink()
