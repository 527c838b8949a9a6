"""Files that are complete or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
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
            os.fchmod(file.fileno(), 0o644)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hexadecimal digest of a file; `on_bytes` hears of every chunk read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def copy_hashed(source: Path, destination: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Copy the bytes of a regular file (never a link to them), flushed to the disk; returns their digest."""
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as reader, destination.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            if on_bytes:
                on_bytes(len(chunk))
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
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


@contextlib.contextmanager
def folder_that_appears_whole(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it when the block ends well and removed when it does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
