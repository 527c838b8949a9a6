"""Files that are complete or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from packager.escapes import json_document
from packager.scratch import flush_folder, flush_tree, scratch_file, scratch_folder

_CHUNK = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0)
"""Windows changes line ends in files that are opened by number without it."""


def expanded(text: str) -> Path:
    """The path that a person wrote, `~` as their home folder. A `~NAME` of nobody is a name like
    any other: there is no such file, and that is what is said then."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was."""
    with scratch_file(path.parent) as (temporary, descriptor):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            let_all_read(file)
        temporary.replace(path)


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
    if os.name == "nt":  # a folder has no descriptor there, and the rights are those of the folder
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        _write_whole(handle, data, path.unlink)
        return
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
    # A name that is no UTF-8 has surrogates in it: those, too, become escapes.
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_atomically(path, f"{json_document(text)}\n".encode())


def sha256(
    path: Path, on_bytes: Callable[[int], None] | None = None, *, follow: bool = True
) -> str:
    """Hexadecimal digest of a file; `on_bytes` hears of every chunk read. Without `follow` a link
    is an OSError."""
    work = hashing(path, follow=follow)
    while True:
        try:
            size = next(work)
        except StopIteration as stop:
            return str(stop.value)
        if on_bytes:
            on_bytes(size)


def hashing(path: Path, *, follow: bool = True, flush: bool = False) -> Generator[int, None, str]:
    """Hexadecimal digest of a file, as a generator of sizes read. With `flush` its bytes are on the
    disk when it ends."""
    digest = hashlib.sha256()
    with os.fdopen(open_to_read(path, follow=follow), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            yield len(chunk)
        if flush:
            os.fsync(file.fileno())
    return digest.hexdigest()


def open_to_read(path: Path, *, follow: bool = False) -> int:
    """A descriptor of a file's bytes. Without `follow` a link is an OSError, and a named pipe is
    not waited for."""
    if follow:
        return os.open(path, os.O_RDONLY | _BINARY)
    if not hasattr(os, "O_NOFOLLOW"):
        # Windows: links are rare there, and only administrators make them.
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        return os.open(path, os.O_RDONLY | _BINARY)
    return os.open(path, os.O_RDONLY | _BINARY | os.O_NOFOLLOW | os.O_NONBLOCK)


def let_all_read(file: IO[bytes]) -> None:
    """The mode of a file that a temporary one becomes: readable by all whom the umask lets, on
    systems that have modes."""
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), permitted(0o644))


def copy_hashed(source: Path, destination: Path) -> Generator[int, None, str]:
    """Copy the bytes of a regular file (never a link to them), flushed to the disk; yields sizes
    copied, returns the digest.

    Raises OSError where the source is a link.
    """
    digest = hashlib.sha256()
    handle = open_to_read(source)
    with os.fdopen(handle, "rb", buffering=0) as reader, destination.open("xb") as writer:
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


@contextlib.contextmanager
def folder_that_appears_whole(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, flushed and renamed to it when the block ends well, and
    removed when it does not."""
    with scratch_folder(final.parent) as holder:
        temporary = holder / "new"
        temporary.mkdir()
        temporary.chmod(permitted(0o755))
        yield temporary
        flush_tree(temporary)
        temporary.rename(final)
        flush_folder(final.parent)


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
    if sys.platform == "win32":
        return False
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
