"""The build cache: the finished output of a stage under the hash of everything that went into it.

A finished stage is a folder `stages/NAME-KEY` with `record.json` in it; it is made elsewhere and
renamed there whole and renamed away before it is removed, so presence means complete. What a
stopped build left in `work/` is removed by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.files import scratch_folder, tree_bytes, write_json
from packager.paths import cache_dir


def key_of(inputs: Any) -> str:
    """The key of a stage: sha256 of its inputs as canonical JSON, shortened to 24 hexadecimal
    digits."""
    return hashlib.sha256(
        json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished stage: its folder, and the facts that it left."""

    folder: Path
    facts: dict[str, Any]


class BuildCache:
    """Finished stages below one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir()
        self._stages = self.root / "stages"
        self._work = self.root / "work"

    def log(self, stage: str) -> Path:
        """Where the engines' own output of the last run of a stage lies; it need not exist yet."""
        return self.root / "logs" / f"{stage}.log"

    def look_up(self, stage: str, key: str) -> Entry | None:
        """The finished stage, if it is there and its record can be read."""
        folder = self._stages / f"{stage}-{key}"
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads((folder / "record.json").read_bytes())
            if isinstance(facts, dict):
                with contextlib.suppress(OSError):  # a cache that may only be read serves as well
                    os.utime(folder)
                return Entry(folder, facts)
        return None

    def work_folder(self) -> contextlib.AbstractContextManager[Path]:
        """A folder of this process for one stage; gone afterwards unless `keep` has moved it."""
        return scratch_folder(self._work, "")

    def keep(self, stage: str, key: str, folder: Path, facts: dict[str, Any]) -> Entry:
        """Make `folder` the finished output of the stage; where a twin of this build was faster,
        its output stays."""
        write_json(folder / "record.json", facts)
        final = self._stages / f"{stage}-{key}"
        final.parent.mkdir(parents=True, exist_ok=True)
        # The twin may be reading what it has finished: only what has no readable record is
        # replaced.
        finished = self.look_up(stage, key)
        if finished is None:
            self._remove(final)
            try:
                folder.rename(final)
            except OSError:
                finished = self.look_up(stage, key)
                if finished is None:
                    raise
        return finished or Entry(final, facts)

    def drop(self, entry: Entry) -> None:
        """Remove one finished stage, e.g. because its files are no longer what its record says."""
        self._remove(entry.folder)

    def stages(self) -> list[tuple[str, int, float]]:
        """Name, bytes and time of last use of every finished stage, least recently used first."""
        if not self._stages.is_dir():
            return []
        rows = [
            (path.name, tree_bytes(path), path.stat().st_mtime)
            for path in self._stages.iterdir()
            if path.is_dir()
        ]
        return sorted(rows, key=lambda row: row[2])

    def clear(self) -> int:
        """Remove every finished stage and every left-over, not the work of a running build; returns
        the bytes that became free."""
        before = tree_bytes(self.root)
        if self._stages.is_dir():
            for folder in self._stages.iterdir():
                self._remove(folder)
        with self.work_folder():
            pass  # entering it has removed what is abandoned
        return before - tree_bytes(self.root)

    def _remove(self, folder: Path) -> None:
        """Make a stage disappear at once, then delete it: half a stage is never seen."""
        with self.work_folder() as work, contextlib.suppress(FileNotFoundError):
            folder.rename(work / "removed")
