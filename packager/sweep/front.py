"""Which cells of a run are on the Pareto front of their target, by their manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packager import limits
from packager.errors import PackError
from packager.foreign import bounded_bytes
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.report.pareto import standings
from packager.sweep.folder import Folder
from packager.sweep.row import Row

_MOST = 2000
"""Cells of one target up to which each is compared with each."""


@dataclass(frozen=True, slots=True)
class Place:
    """`front` is None where a cell was not measured; `quality_by` says what quality was told by,
    None where the cells share no figure of it."""

    front: bool | None
    beaten_by: tuple[str, ...] = ()
    quality_by: str | None = None


def read(folder: Folder, row: Row) -> Manifest | None:
    """The manifest of a finished row, from its package or beside it; None where it is gone or
    damaged."""
    if not folder.is_there(row):
        return None
    try:
        if row.package is not None:
            return manifest.read(folder.root / row.package)
        path = folder.root / str(row.manifest)
        return manifest.parse(bounded_bytes(path, limits.MANIFEST_BYTES), str(path))
    except (PackError, OSError):
        return None


def fronts(folder: Folder, rows: Iterable[Row]) -> dict[str, Place]:
    """The place of every finished row among those of its target, by id."""
    groups: dict[str, list[tuple[Row, Manifest]]] = {}
    for row in rows:
        known = read(folder, row) if row.status == "done" else None
        if known is not None:
            groups.setdefault(row.of.target, []).append((row, known))
    places: dict[str, Place] = {}
    for members in groups.values():
        if len(members) <= _MOST:
            places |= _places(members)
    return places


def _places(members: list[tuple[Row, Manifest]]) -> dict[str, Place]:
    known, by = standings([member.contents for _, member in members])
    return {
        row.id: Place(standing.front, tuple(members[at][0].id for at in standing.beaten_by), by)
        for (row, _), standing in zip(members, known, strict=True)
    }
