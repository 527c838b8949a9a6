"""The build cache: the finished output of a stage under the hash of everything that went into it.

A finished stage is a folder `stages/NAME-KEY` with `record.json` in it, which holds the digest of
every file and of itself. It is made elsewhere, flushed, renamed there whole and renamed away before
it is removed, so presence means complete. A cache may be shared or lie on a failing disk: what is
not as its record says counts as absent. What a stopped build left in `work/` is removed by the next
one. Nothing is removed whose name is not one of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager import locks
from packager.files import hashing, tree_bytes, write_json
from packager.json_values import JsonObject
from packager.package.manifest import FileEntry
from packager.paths import PREFIXES, STAGE, cache_dir, mark
from packager.pipeline.stage_log import own_log
from packager.pipeline.stage_record import (
    RECORD,
    Unfit,
    compare_names,
    read,
    sealed,
    sealed_files,
)
from packager.scratch import flush_folder, scratch_folder

if TYPE_CHECKING:
    from packager.pipeline.shared_cache import Store

_EARLIER_WORK = re.compile(r"[a-z0-9_]{8}")
"""What the work folders of earlier versions are called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished stage: its folder, the facts that it left, and its files with their digests,
    paths below the folder."""

    folder: Path
    facts: JsonObject
    files: tuple[FileEntry, ...] = ()


class BuildCache:
    """Finished stages below one folder. Within `holding` nobody clears what was looked up.

    `shared` is a cache of several machines that stages are taken from and given to as well.
    """

    def __init__(self, root: Path | None = None, shared: Store | None = None) -> None:
        self.root = root or cache_dir()
        self.shared = shared
        self._stages = self.root / "stages"
        self._work = self.root / "work"
        self._holders = 0
        self._locks: dict[Path, int] = {}

    @contextlib.contextmanager
    def holding(self) -> Iterator[BuildCache]:
        """What is looked up or kept within the block stays locked until it ends, and no `clear` of
        anybody removes it."""
        self._holders += 1
        try:
            yield self
        finally:
            self._holders -= 1
            while self._locks and not self._holders:
                os.close(self._locks.popitem()[1])

    def log(self, stage: str) -> Path:
        """Where the engines' own output of this process's last run of a stage lies; it may be
        empty."""
        with contextlib.suppress(OSError):  # whoever writes there says so
            mark(self.root)
        return own_log(self.root / "logs", stage)

    def look_up(self, stage: str, key: str) -> Entry | None:
        """The finished stage, if its record and the names and sizes of its files are right. Their
        bytes: see `compare`."""
        try:
            entry = self._open(stage, key)
        except Unfit:
            return None
        if entry is None or not self._lock(entry.folder, entry.folder):
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read serves as well
            os.utime(entry.folder)
        return entry

    def flaw(self, stage: str, key: str) -> str | None:
        """Why a stage that is there cannot be used, as the end of a sentence; None where it can, or
        is not there."""
        try:
            self._open(stage, key)
        except Unfit as error:
            return str(error)
        return None

    def compare(self, entry: Entry, largest: int | None = None) -> Generator[int, None, str | None]:
        """Compare the bytes of a stage with its record: yields sizes, returns what is wrong, as the
        end of a sentence.

        With `largest`, files of more bytes are left out. A size and a time prove nothing: after a
        power cut there may be zeros.
        """
        for row in entry.files:
            if largest is not None and row.size > largest:
                continue
            try:
                digest = yield from hashing(entry.folder / row.path, follow=False)
            except OSError as error:
                return f"cannot be read ({row.path}: {error.strerror})"
            if digest != row.sha256:
                return f"is damaged ({row.path} is not what was written)"
        return None

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder of this process for one stage; gone afterwards unless `keep` has moved it."""
        mark(self.root)
        self._remove_earlier_work()
        with scratch_folder(self._work) as holder:
            work = holder / "stage"
            work.mkdir()
            yield work

    def keep(self, stage: str, key: str, folder: Path, facts: JsonObject) -> Entry:
        """`keeping`, without its sizes."""
        work = self.keeping(stage, key, folder, facts)
        while True:
            try:
                next(work)
            except StopIteration as stop:
                entry: Entry = stop.value
                return entry

    def keeping(
        self, stage: str, key: str, folder: Path, facts: JsonObject
    ) -> Generator[int, None, Entry]:
        """Make `folder` the finished output of the stage, on the disk before it has its name;
        yields sizes hashed.

        Where a twin of this build was faster, its output stays.
        """
        files = yield from sealed_files(folder)
        write_json(folder / RECORD, sealed(facts, [asdict(row) for row in files]))
        flush_folder(folder)
        final = self._folder(stage, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        # The twin may be reading what it has finished: only what cannot be used is replaced.
        finished = self.look_up(stage, key)
        if finished is None:
            self._remove(final)
            self._lock(folder, final)
            try:
                folder.rename(final)
            except OSError:
                self._unlock(final)
                finished = self.look_up(stage, key)
                if finished is None:
                    raise
            flush_folder(final.parent)
        return finished or Entry(final, facts, files)

    def drop(self, entry: Entry) -> None:
        """Remove one finished stage, e.g. because its files are no longer what its record says."""
        self._remove(entry.folder)

    def discard(self, stage: str, key: str) -> None:
        """Remove what stands in the place of a stage, usable or not."""
        self._remove(self._folder(stage, key))

    def stages(self) -> list[tuple[str, int, float]]:
        """Name, bytes and time of last use of every finished stage, least recently used first."""
        rows = [(path.name, tree_bytes(path), path.stat().st_mtime) for path in self._finished()]
        return sorted(rows, key=lambda row: row[2])

    def evict(self, size: int) -> int:
        """Remove finished stages that nobody uses, the least recently used first, until `size`
        bytes are free; returns the bytes freed."""
        freed = 0
        for name, taken, _ in self.stages():
            if freed >= size:
                break
            with _unused(self._stages / name) as unused:
                if unused:
                    self._remove(self._stages / name)
                    freed += taken
        return freed

    def clear(self) -> int:
        """Remove every finished stage and every left-over, not what a running build works on or
        reads; returns the bytes freed."""
        before = tree_bytes(self.root)
        # States of prefixes are computed again where one is missed.
        prefixes = self.root / PREFIXES
        if prefixes.is_dir() and not prefixes.is_symlink():
            shutil.rmtree(prefixes, ignore_errors=True)
        for folder in self._finished():
            with _unused(folder) as unused:
                if unused:
                    self._remove(folder)
        if self.root.is_dir():
            with self.work_folder():
                pass  # entering it has removed what is abandoned
        return before - tree_bytes(self.root)

    def _folder(self, stage: str, key: str) -> Path:
        return self._stages / f"{stage}-{key}"

    def _finished(self) -> list[Path]:
        """The folders of finished stages. Whatever else somebody put there is none of ours."""
        if not self._stages.is_dir() or self._stages.is_symlink():
            return []
        return [
            path
            for path in self._stages.iterdir()
            if STAGE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]

    def _open(self, stage: str, key: str) -> Entry | None:
        folder = self._folder(stage, key)
        if not os.path.lexists(folder):
            return None
        try:
            if self._stages.is_symlink() or not stat.S_ISDIR(folder.lstat().st_mode):
                raise Unfit("is not a folder")
            facts, files = read(folder / RECORD)
            compare_names(folder, files)
        except OSError as error:
            raise Unfit(f"cannot be read ({error.strerror})") from None
        return Entry(folder, facts, files)

    def _lock(self, folder: Path, final: Path) -> bool:
        """Lock a stage that lies at `folder` and will at `final`, within `holding`; False where
        somebody is removing it."""
        if not self._holders or final in self._locks:
            return True
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            locks.share(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:  # a disk that knows no locks
            os.close(descriptor)
            return True
        self._locks[final] = descriptor
        if not folder.is_dir():
            self._unlock(final)
            return False
        return True

    def _unlock(self, final: Path) -> None:
        if final in self._locks:
            os.close(self._locks.pop(final))

    def _remove(self, folder: Path) -> None:
        """Make a stage disappear at once, then delete it: half a stage is never seen."""
        self._unlock(folder)
        with self.work_folder() as work, contextlib.suppress(FileNotFoundError):
            folder.rename(work / "removed")

    def _remove_earlier_work(self) -> None:
        """What builds of earlier versions left in `work/`, which had no mark; the cache itself has
        one by now."""
        if not self._work.is_dir() or self._work.is_symlink():
            return
        for left in list(self._work.iterdir()):
            if _EARLIER_WORK.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
                with _unused(left) as unused:
                    if unused:
                        shutil.rmtree(left, ignore_errors=True)


def whole(cache: BuildCache, stage: str, key: str) -> Entry | None:
    """The finished stage when every byte of it is as its record says; what is not is removed, and
    None."""
    entry = cache.look_up(stage, key)
    work = cache.compare(entry) if entry is not None else None
    while entry is not None and work is not None:
        try:
            next(work)
        except StopIteration as stop:
            if stop.value is None:
                return entry
            cache.drop(entry)
            return None
    return None


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no living process has locked the folder; none can within the block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            locks.take(descriptor)
            unused = True
        except BlockingIOError:
            unused = False
        except OSError:  # a disk that knows no locks
            unused = True
        yield unused
    finally:
        os.close(descriptor)
