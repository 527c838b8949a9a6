"""Cells that a plan leaves out, by patterns."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from packager.sweep.cell import Cell

NONE = "none"
"""The set of no adapters, in a plan file."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Cells that are left out: patterns as a shell writes them, each None where it does not
    matter."""

    variant: str | None = None
    adapter: str | None = None
    recipe: str | None = None
    kv: str | None = None
    context: int | None = None
    target: str | None = None
    profile: str | None = None
    why: str = ""

    def matches(self, cell: Cell) -> bool:
        """Whether all that is given fits the cell."""
        pairs = (
            (self.variant, (cell.variant, cell.short)),
            (self.adapter, (*cell.lora, *(Path(one).name for one in cell.lora)) or (NONE,)),
            (self.recipe, (cell.recipe, cell.recipe_id)),
            (self.kv, (cell.kv,)),
            (self.target, (cell.target, Path(cell.target).stem)),
            (self.profile, (cell.profile, Path(cell.profile).name)),
        )
        return (self.context is None or cell.context == self.context) and all(
            pattern is None
            or any(fnmatchcase(name.casefold(), pattern.casefold()) for name in names)
            for pattern, names in pairs
        )
