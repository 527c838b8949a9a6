"""Our own temporaries beside what they become: known by their name and a mark, locked while their
owner lives.

Whoever works in a folder first removes what killed processes of ours left there, and nothing else.
A lock and no process id says that an owner lives: the system frees it however the process ends, and
containers that share a disk see it as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packager import locks
from packager.json_values import JsonObject

NAME = re.compile(r"\.qwen-pack-tmp-[0-9a-f]{16}")
"""How a temporary of ours is called, file or folder."""

MARK = ".made-by-qwen-pack"
_MARK_TEXT = b"A temporary folder of qwen-pack. It is removed when its process has ended.\n"
_JOURNAL = ".placing.json"
_MOST_JOURNAL = 1 << 20


def is_ours(name: str) -> bool:
    """Whether a file or folder of that name is a temporary of ours."""
    return NAME.fullmatch(name) is not None


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder of this process alone below `parent`, gone when the block ends; what killed
    processes left there goes first."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    # Named before it is made: an interruption between two lines leaves nothing either.
    folder = parent / _new_name()
    lock: int | None = None
    try:
        lock = _make_locked(folder)
        yield folder
    finally:
        try:
            _remove(folder)
        except KeyboardInterrupt:
            _remove(folder)
            raise
        if lock is not None:
            os.close(lock)


def temporary_folder() -> contextlib.AbstractContextManager[Path]:
    """The same in the system's place for what nobody is to see (TMPDIR): there too, a kill leaves
    nothing for ever."""
    return scratch_folder(Path(tempfile.gettempdir()))


@contextlib.contextmanager
def scratch_file(parent: Path) -> Iterator[tuple[Path, int]]:
    """Name and descriptor of a new empty file in `parent`, which the block renames; removed where
    it does not."""
    remove_abandoned(parent)
    path = parent / _new_name()
    descriptor: int | None = None
    try:
        descriptor = _open_locked(path)
        yield path, descriptor
    finally:
        # Still locked: nobody else takes the file for abandoned, and its new name is not touched.
        try:
            path.unlink(missing_ok=True)
        except KeyboardInterrupt:
            path.unlink(missing_ok=True)
            raise
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(parent: Path) -> None:
    """Remove what processes of ours that were killed left in `parent`; somebody else's files are
    never touched."""
    if not locks.AVAILABLE:
        return
    with contextlib.suppress(OSError):
        for left in list(parent.iterdir()):
            if is_ours(left.name):
                _remove_abandoned(left)


def place(holder: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """Give each file or folder of `holder` its final name beside it: all of them or none, also
    where this process is killed.

    `pairs` are (temporary, final); the temporaries are flushed. Raises FileExistsError where a
    final name is taken.
    """
    written = [final for _, final in pairs]
    for final in written:
        if os.path.lexists(final):
            raise FileExistsError(17, "File exists", str(final))
    journal = holder / _JOURNAL
    if len(pairs) > 1:
        rows = [_row(holder, temporary, final) for temporary, final in pairs]
        _write_whole(journal, json.dumps(rows).encode())
    try:
        for temporary, final in pairs:
            _rename_new(temporary, final)
        for folder in {final.parent for final in written}:
            flush_folder(folder)
    except BaseException:
        _roll_back(holder, pairs)
        raise
    # With the journal goes the way back: what has its name keeps it.
    journal.unlink(missing_ok=True)


def flush_tree(top: Path) -> None:
    """Make a file, or all files and names below a folder, durable."""
    if not top.is_dir():
        _flush_file(top)
        return
    for parent, _, names in os.walk(top, topdown=False):
        for name in names:
            _flush_file(Path(parent) / name)
        flush_folder(Path(parent))


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where folders can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_file(path: Path) -> None:
    if stat.S_ISREG(path.lstat().st_mode):
        # Windows flushes only what is open for writing.
        mode = os.O_RDWR if os.name == "nt" else os.O_RDONLY
        descriptor = os.open(path, mode | getattr(os, "O_NOFOLLOW", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _new_name() -> str:
    return f".qwen-pack-tmp-{secrets.token_hex(8)}"


def _lock(descriptor: int) -> None:
    if not locks.AVAILABLE:
        return
    # A disk that knows no locks: nobody takes anything for abandoned there.
    with contextlib.suppress(OSError):
        locks.wait(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(descriptor)
        if path.exists():
            return descriptor
        # Somebody cleaned up between the two calls.
        os.close(descriptor)


def _make_locked(folder: Path) -> int | None:
    while True:
        folder.mkdir(mode=0o700)
        if not locks.AVAILABLE:
            (folder / MARK).write_bytes(_MARK_TEXT)
            return None
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            _lock(descriptor)
            try:
                (folder / MARK).write_bytes(_MARK_TEXT)
                return descriptor
            except FileNotFoundError:
                # Somebody cleaned up between the two calls.
                os.close(descriptor)


def _remove_abandoned(left: Path) -> None:
    if not locks.AVAILABLE:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                return  # where several people write, what another one left is none of ours
            locks.take(descriptor)
            if stat.S_ISREG(status.st_mode):
                left.unlink()
            elif _marked(left):
                _undo(left)
                _remove(left)
            else:
                left.rmdir()  # killed before its mark was written: then it is empty
        finally:
            os.close(descriptor)


def _marked(folder: Path) -> bool:
    """Whether the folder has our mark, which may be cut short by a kill."""
    mark = folder / MARK
    try:
        status = mark.lstat()
        return stat.S_ISREG(status.st_mode) and _MARK_TEXT.startswith(
            mark.read_bytes()[: len(_MARK_TEXT) + 1]
        )
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    """The mark goes last: a removal that is cut short is finished by the next one."""
    with contextlib.suppress(OSError):
        for child in list(folder.iterdir()):
            if child.name == MARK:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child, ignore_errors=True)
            else:
                child.unlink()
        (folder / MARK).unlink(missing_ok=True)
        folder.rmdir()


def _stamp(path: Path) -> list[int]:
    """By what a file is known again under another name."""
    status = path.lstat()
    return [status.st_dev, status.st_ino, 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns]


def _row(holder: Path, temporary: Path, final: Path) -> JsonObject:
    return {
        "temporary": temporary.relative_to(holder).as_posix(),
        "final": final.name,
        "stamp": _stamp(temporary),
    }


def _undo(holder: Path) -> None:
    """Take back the names that a killed process gave, unless it gave all of them; only from what is
    still the same file."""
    journal = holder / _JOURNAL
    if not journal.is_file() or journal.stat().st_size > _MOST_JOURNAL:
        return
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        rows = [
            (
                holder / str(row["temporary"]),
                holder.parent / Path(str(row["final"])).name,
                row["stamp"],
            )
            for row in json.loads(journal.read_bytes())
        ]
        placed = [row for row in rows if os.path.lexists(row[1]) and _stamp(row[1]) == row[2]]
        if len(placed) < len(rows):
            for temporary, final, _ in placed:
                _take_back(temporary, final)


def _take_back(temporary: Path, final: Path) -> None:
    if os.path.lexists(temporary):
        final.unlink()  # the second name of the same file
    else:
        final.rename(temporary)


def _roll_back(holder: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    for temporary, final in pairs:
        if os.path.lexists(final) and (not os.path.lexists(temporary) or final.samefile(temporary)):
            _take_back(temporary, final)
    (holder / _JOURNAL).unlink(missing_ok=True)


def _rename_new(temporary: Path, final: Path) -> None:
    """Rename, but never over a file: a hard link fails where the name is taken. Folders are not
    replaced unless they are empty."""
    if not temporary.is_dir():
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError:
            temporary.rename(final)  # a disk without hard links
        else:
            temporary.unlink()
        return
    temporary.rename(final)


def _write_whole(path: Path, data: bytes) -> None:
    aside = path.with_name(f"{path.name}.new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    flush_folder(path.parent)
