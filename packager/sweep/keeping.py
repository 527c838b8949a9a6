"""Which packages of a sweep stay, and how it stays below its limit of disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packager.errors import PackError, no_room
from packager.files import tree_bytes, write_json
from packager.package import manifest, shelf
from packager.pipeline.cache import BuildCache
from packager.records import Contents
from packager.report.pareto import standings
from packager.sweep.folder import Folder
from packager.sweep.front import read
from packager.sweep.matrix import Planned
from packager.sweep.plan_file import SweepPlan
from packager.sweep.row import Row
from packager.units import human_bytes

Group = tuple[str, str, int | None, str]


class Keeper:
    """Drops packages to their manifest as the plan says: `best` keeps those on the Pareto front
    among the packages of one variant, target, context and profile."""

    def __init__(
        self, plan: SweepPlan, folder: Folder, cache: BuildCache, rows: Mapping[str, Row]
    ) -> None:
        self._plan, self._folder, self._cache = plan, folder, cache
        self._changed: list[Row] = []
        self._kept: dict[Group, dict[str, Contents]] = {}
        if plan.keep_packages == "best":
            for row in rows.values():
                self._remember(row)

    def make_room(self, one: Planned, underway: int = 0) -> None:
        """Have the cell's build stay below the limit beside others that will take `underway` bytes:
        stages of the cache that nobody uses go first, least recently used. Raises PackError (exit
        code 7) where that is not enough."""
        limit = self._plan.disk_bytes
        if limit is None:
            return
        needed = one.disk_bytes + underway
        used = tree_bytes(self._folder.root) + sum(size for _, size, _ in self._cache.stages())
        over = used + needed - limit
        if over > 0:
            over -= self._cache.evict(over)
        if over > 0:
            raise no_room(
                f"The build needs {human_bytes(needed)} of disk, and the sweep already takes "
                f"{human_bytes(limit - needed + over)} of its {human_bytes(limit)}.",
                "Raise `disk` in [limits], or keep fewer packages with --keep-packages best.",
            )

    def thin(self, rows: Mapping[str, Row], row: Row) -> Iterator[str]:
        """Drop the packages that need not stay now that this row is there; yields a sentence for
        each of another row."""
        if row.status != "done" or row.package is None or self._plan.keep_packages == "all":
            return
        if self._plan.keep_packages == "none":
            self.drop(row)
            return
        self._remember(row)
        group = self._kept.get(_group(row), {})
        names = list(group)
        for name, standing in zip(names, standings(list(group.values()))[0], strict=True):
            if standing.beaten_by:
                del group[name]
                self.drop(rows[name])
                better = ", ".join(rows[names[at]].of.label for at in standing.beaten_by)
                yield f"{rows[name].of.label}: only the manifest is kept; better on all: {better}."

    def changed(self) -> list[Row]:
        """Rows whose package was dropped since the last time this was asked."""
        found, self._changed = self._changed, []
        return found

    def _remember(self, row: Row) -> None:
        if row.status == "done" and row.package is not None:
            known = read(self._folder, row)
            if known is not None:
                self._kept.setdefault(_group(row), {})[row.id] = known.contents

    def drop(self, row: Row) -> None:
        """Keep the manifest, remove the package; a package that was changed by hand stays."""
        if row.package is None:
            return
        package = self._folder.root / row.package
        kept = self._folder.manifests / f"{row.id}.json"
        self._folder.manifests.mkdir(exist_ok=True)
        try:
            write_json(kept, manifest.read(package).data)
            shelf.delete(package)
        except PackError:
            return
        self._changed.append(row.but(package=None, manifest=self._folder.below(kept)))


def _group(row: Row) -> Group:
    cell = row.of
    return cell.weights, cell.target, cell.context, cell.profile
