"""registries.toml: registries with several names, and the hosts that their log-ins may go to."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """One registry; see registries.toml."""

    key: str
    names: tuple[str, ...]
    api: str
    tokens: tuple[str, ...]
    library: str | None = None


@cache
def _all() -> tuple[Known, ...]:
    data = tomllib.loads(Path(__file__).with_name("registries.toml").read_text(encoding="utf-8"))
    return tuple(
        Known(key, tuple(row["names"]), row["api"], tuple(row["tokens"]), row.get("library"))
        for key, row in data.items()
    )


def known(host: str) -> Known | None:
    """The registry that answers to that name, None for one that needs nothing said."""
    return next((row for row in _all() if host.casefold() in row.names), None)


def canonical(host: str) -> str:
    """One name for all names of a registry, as credential files are searched for it."""
    registry = known(host)
    return registry.key if registry else host.casefold()
