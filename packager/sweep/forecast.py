"""The matrix before anything starts, as rows, sentences and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packager.json_values import JsonObject
from packager.sweep.matrix import Matrix, Planned
from packager.sweep.plan_file import SweepPlan
from packager.units import human_bytes, human_seconds

_COLUMNS = ("variant", "recipe", "target", "context", "files", "memory", "to build", "time", "")


def columns() -> tuple[str, ...]:
    """The titles of `rows`."""
    return _COLUMNS


def rows(found: Matrix) -> list[tuple[str, ...]]:
    """One row per cell; the last column says why it cannot be built."""
    return [_row(planned) for planned in found.planned]


def _row(one: Planned) -> tuple[str, ...]:
    cell = one.cell
    short = f"{cell.short} with {cell.adapters}" if cell.lora else cell.short
    head = (short, cell.recipe_id, cell.target, str(cell.context or ""))
    if one.problem is not None:
        return (*head, "", "", "", "", one.problem)
    return (
        *head,
        human_bytes(one.artifact_bytes),
        human_bytes(one.memory_bytes),
        human_bytes(one.build.memory),
        human_seconds(one.expected.total) if one.expected.total else "shared",
        "" if one.cell.profile == "default" else f"profile {one.cell.profile}",
    )


# Any: JSON of `sweep --dry-run`: counts, bytes, and None where nothing is known.
def totals(found: Matrix) -> dict[str, Any]:
    """Counts, bytes and seconds of the whole matrix."""
    possible = found.possible
    return {
        "cells": len(found.planned),
        "possible": len(possible),
        "impossible": len(found.planned) - len(possible),
        "excluded": len(found.excluded),
        "package_bytes": sum(planned.artifact_bytes for planned in possible),
        "largest_build_memory_bytes": max(
            (planned.build.memory for planned in possible), default=0
        ),
        "expected_s": round(sum(planned.expected.total for planned in possible), 1),
        "basis": _basis(possible),
    }


def _basis(possible: tuple[Planned, ...]) -> str:
    measured = [planned.expected.basis == "measured" for planned in possible]
    if measured and all(measured):
        return "measured"
    return "partly measured" if any(measured) else "estimated"


def sentences(found: Matrix) -> Iterator[str]:
    """What a reader of the table must know."""
    known = totals(found)
    yield (
        f"{known['possible']} of {known['cells']} cells can be built: "
        f"{human_bytes(known['package_bytes'])} of packages, about "
        f"{human_seconds(known['expected_s'])} ({known['basis']}), without the download."
    )
    if found.excluded:
        yield f"{len(found.excluded)} cells are excluded by the plan."
    yield from found.notes


def as_dict(plan: SweepPlan, found: Matrix) -> JsonObject:
    """JSON form of a dry run."""
    return {
        "name": plan.name,
        "dry_run": True,
        "totals": totals(found),
        "cells": [planned.as_dict() for planned in found.planned],
        "excluded": [{"id": cell.id, **cell.to_json(), "why": why} for cell, why in found.excluded],
        "notes": list(found.notes),
    }
