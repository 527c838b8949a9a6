"""The contents of a manifest with the least that any must have, and what a test adds to it."""

from __future__ import annotations

from typing import Any

from packager.records import Contents

LEAST: dict[str, Any] = {
    "name": "n",
    "files": [],
    "runtime": {"name": "r"},
    "recipe": {},
    "variant": {},
    "source": {},
}


def contents_of(data: dict[str, Any] | None = None, **fields: Any) -> Contents:
    """A manifest of those fields, typed."""
    return Contents.from_json({**LEAST, **(data or {}), **fields})
