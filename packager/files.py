"""Files that are complete or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), permitted(0o644))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def permitted(mode: int) -> int:
    """`mode` without what the person's umask takes away: for files that were made under a temporary
    name, for their owner alone."""
    with (
        contextlib.suppress(OSError),
        open("/proc/self/status", encoding="ascii", errors="replace") as status,
    ):
        for line in status:
            if line.startswith("Umask:"):
                return mode & ~int(line.split()[1], 8)
    # Elsewhere it can be read by setting it only; what another thread makes meanwhile is its
    # owner's alone.
    mask = os.umask(0o077)
    os.umask(mask)
    return mode & ~mask


def write_secret(path: Path, data: bytes) -> None:
    """A new file that nobody but its owner can ever read. Raises FileExistsError where something
    stands at `path`.

    It gets its name when it is whole, so that a kill leaves nothing; where the disk has no files
    without a name (Linux's O_TMPFILE), it is made under its own name by one call, and written by
    the next.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _linked_secret(folder, path, data):
            handle = os.open(
                path.name,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
                0o600,
                dir_fd=folder,
            )
            _write_whole(handle, data, lambda: os.unlink(path.name, dir_fd=folder))
        os.fsync(folder)
    finally:
        os.close(folder)


def _linked_secret(folder: int, path: Path, data: bytes) -> bool:
    """Whether the file could be written without a name, and linked to it."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        return False
    try:
        handle = os.open(".", os.O_WRONLY | flag, 0o600, dir_fd=folder)
    except OSError:
        return False
    try:
        os.write(handle, data)
        os.fsync(handle)
        # With a folder's descriptor the call follows the link, to the file itself.
        os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    finally:
        os.close(handle)
    return True


def _write_whole(handle: int, data: bytes, undo: Callable[[], None]) -> None:
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        undo()
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically."""
    # A name that is no UTF-8 has surrogates in it, for which JSON has an escape and UTF-8 has not.
    write_atomically(
        path,
        (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"),
    )


def sha256(
    path: Path, on_bytes: Callable[[int], None] | None = None, *, follow: bool = True
) -> str:
    """Hexadecimal digest of a file; `on_bytes` hears of every chunk read. Without `follow` a link
    is an OSError."""
    digest = hashlib.sha256()
    # Not blocking: a named pipe is not waited for.
    handle = os.open(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW | os.O_NONBLOCK))
    with os.fdopen(handle, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def copy_hashed(source: Path, destination: Path) -> Generator[int, None, str]:
    """Copy the bytes of a regular file (never a link to them), flushed to the disk; yields sizes
    copied, returns the digest."""
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as reader, destination.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            yield len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def tree_bytes(folder: Path) -> int:
    """Bytes of all regular files below a folder, links not followed; 0 when it is not there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = (Path(parent) / name).lstat()
                total += status.st_size
    return total


def regular_files(folder: Path) -> list[Path]:
    """All regular files below a folder, in the order of their relative path."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()),
        key=lambda path: path.relative_to(folder).as_posix(),
    )


def free_bytes(path: Path) -> int:
    """Free space on the disk that holds `path`, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest above it that exists."""
    # Not Path.exists, which raises where a folder above may not be searched or the name is too
    # long.
    while not os.access(path, os.F_OK) and path != path.parent:
        path = path.parent
    return path


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where folders can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def folder_that_appears_whole(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it when the block ends well and removed when it
    does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    temporary.chmod(permitted(0o755))
    try:
        yield temporary
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder of this process alone below `parent`, gone when the block ends; what killed
    processes left there goes first.

    A lock on the folder and no process id says that its owner lives: the system frees it however
    the process ends, and containers that share a disk see it as well.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if left.name.startswith(prefix):
            _remove_abandoned(left)
    folder, lock = _locked_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(
                OSError
            ):  # a disk that knows no locks: nobody will take the folder for abandoned there
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            # Somebody cleaned up between the two calls.
            os.close(lock)


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def replace_folder(new: Path, final: Path, aside: Path) -> None:
    """Put `new` in the place of the folder `final`, which goes to `aside` or to where `new` was, if
    it is there; all on one disk.

    At no moment is there neither of the two, except for an instant on a system that cannot exchange
    names.
    """
    if not final.exists():
        with contextlib.suppress(OSError):  # somebody else was faster: his is replaced
            new.rename(final)
            return
    if _exchanged(new, final):
        return
    try:
        final.rename(aside)
        new.rename(final)
    except BaseException:
        if aside.exists() and not final.exists():
            aside.rename(final)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step (Linux: renameat2, macOS: renamex_np); False where system or
    disk cannot."""
    libc = ctypes.CDLL(None)
    swap = 2  # RENAME_EXCHANGE, RENAME_SWAP
    here = -100  # AT_FDCWD
    names = os.fsencode(one), os.fsencode(other)
    try:
        return bool(
            libc.renamex_np(*names, swap) == 0
            if sys.platform == "darwin"
            else libc.renameat2(here, names[0], here, names[1], swap) == 0
        )
    except AttributeError:
        return False
