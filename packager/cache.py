"""The build cache: the finished output of a stage under the hash of everything that went into it.

A finished stage is a folder `stages/NAME-KEY` with `record.json` in it; it is made elsewhere and renamed
there whole, so presence means complete. What a stopped build left in `work/` is removed by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.files import tree_bytes, write_json
from packager.paths import cache_dir


def key_of(inputs: Any) -> str:
    """The key of a stage: sha256 of its inputs as canonical JSON, shortened to 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:24]


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
            os.utime(folder)
            return Entry(folder, facts)
        return None

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder of this process for one stage; gone afterwards unless `keep` has moved it."""
        self._work.mkdir(parents=True, exist_ok=True)
        self._sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, stage: str, key: str, folder: Path, facts: dict[str, Any]) -> Entry:
        """Make `folder` the finished output of the stage."""
        write_json(folder / "record.json", facts)
        final = self._stages / f"{stage}-{key}"
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            # A twin of this build finished first, or its record is damaged: ours is whole either way.
            shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        return Entry(final, facts)

    def drop(self, entry: Entry) -> None:
        """Remove one finished stage, e.g. because its files are no longer what its record says."""
        shutil.rmtree(entry.folder, ignore_errors=True)

    def stages(self) -> list[tuple[str, int, float]]:
        """Name, bytes and time of last use of every finished stage, least recently used first."""
        if not self._stages.is_dir():
            return []
        rows = [(path.name, tree_bytes(path), path.stat().st_mtime) for path in self._stages.iterdir() if path.is_dir()]
        return sorted(rows, key=lambda row: row[2])

    def clear(self) -> int:
        """Remove every finished stage and every left-over; returns the bytes that became free."""
        freed = tree_bytes(self._stages) + tree_bytes(self._work)
        shutil.rmtree(self._stages, ignore_errors=True)
        shutil.rmtree(self._work, ignore_errors=True)
        return freed

    def _sweep(self) -> None:
        """Remove the work of processes that are gone."""
        for left in self._work.iterdir():
            pid = left.name.partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
