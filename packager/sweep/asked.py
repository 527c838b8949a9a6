"""What a report must know of the plan of a run, kept beside its rows."""

from __future__ import annotations

from typing import Any

from packager.records.base import Number, Record


class Compare(Record, frozen=True, kw_only=True):
    """Two candidates, each by patterns as those of an exclusion."""

    name: str
    # Any: patterns of TOML, each checked where the axes are known.
    one: dict[str, Any]
    other: dict[str, Any]


class Asked(Record, frozen=True, kw_only=True):
    """`tasks` and `behaviour_percent` of the routing table, and the standing comparisons."""

    tasks: tuple[str, ...] = ()
    behaviour_percent: Number | None = None
    compare: tuple[Compare, ...] = ()
