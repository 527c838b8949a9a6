"""Files cut into pieces below a size, for places that take no larger ones, and joined again without
loss.

The pieces of FILE are FILE.001, FILE.002 and so on: `cat FILE.* > FILE` joins them on any system,
qwen-pack reads them as they are.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from packager.errors import bad_input, usage

_MOST = 999
_SMALLEST = 1 << 16


def count_of(size: int, limit: int) -> int:
    """How many pieces of at most `limit` bytes a file of `size` bytes makes. Raises PackError
    (usage) for more than 999."""
    if limit < _SMALLEST:
        raise usage(
            f"Pieces of {limit} bytes are too small.",
            f"Take at least {_SMALLEST} bytes for --max-file-size.",
        )
    count = -(-size // limit)
    if count > _MOST:
        raise usage(
            f"{size} bytes in pieces of {limit} would be {count} files, more than {_MOST}.",
            "Take a larger --max-file-size.",
        )
    return count


def names(path: Path, count: int) -> list[Path]:
    """Where the pieces of `path` lie; `path` itself where there is one."""
    return (
        [path]
        if count <= 1
        else [path.with_name(f"{path.name}.{number:03d}") for number in range(1, count + 1)]
    )


def cut(path: Path, size_limit: int) -> list[Path]:
    """Cut a file into its pieces, from its end, so that one piece of additional disk is enough.
    Returns where they lie, in order.

    The file itself becomes the first piece. Where it ends before that, all that was made is to be
    thrown away: use a scratch folder.
    """
    count = count_of(path.stat().st_size, size_limit)
    places = names(path, count)
    with path.open("rb+") as source:
        for number in range(count - 1, 0, -1):
            source.seek(number * size_limit)
            with places[number].open("xb") as piece:
                shutil.copyfileobj(source, piece, 1 << 20)
            source.truncate(number * size_limit)
    if count > 1:
        path.rename(places[0])
    return places


def is_piece(whole: str, name: str) -> bool:
    """Whether `name` is that of a piece of the file called `whole`."""
    return re.fullmatch(re.escape(whole) + r"\.\d{3}", name) is not None


def found(path: Path) -> list[Path]:
    """The pieces that belong together with `path`: all of them for FILE.001 or for a FILE that
    stands there in pieces only.

    Raises PackError (exit code 6) for a gap in their numbers, and for a piece that is no file.
    """
    base = path.with_name(re.sub(r"\.001$", "", path.name))
    first = base.with_name(f"{base.name}.001")
    if (path.is_file() and path != first) or not first.is_file():
        return [path]
    numbers = sorted(
        int(other.name.rpartition(".")[2])
        for other in base.parent.iterdir()
        if is_piece(base.name, other.name)
    )
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            raise bad_input(
                f"{base.name}.{expected:03d} is missing next to {first}.",
                "Bring all pieces into one folder.",
            )
    pieces = names(base, len(numbers)) if len(numbers) > 1 else [first]
    for piece in pieces:
        if not piece.is_file():  # a pipe would be waited for
            raise bad_input(f"{piece} is not a file.", "Bring all pieces into one folder.")
    return pieces


def joined(pieces: Sequence[Path]) -> IO[bytes]:
    """The pieces as one file, to be read and sought in; nothing is copied."""
    return pieces[0].open("rb") if len(pieces) == 1 else io.BufferedReader(_Joined(pieces), 1 << 17)


class _Joined(io.RawIOBase):
    """Several files one behind the other."""

    def __init__(self, pieces: Sequence[Path]) -> None:
        self._files = [piece.open("rb", buffering=0) for piece in pieces]
        self._starts = [0]
        for file in self._files:
            self._starts.append(self._starts[-1] + os.fstat(file.fileno()).st_size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        if start + offset < 0:
            raise OSError("before the start of the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        for file, start, end in zip(self._files, self._starts, self._starts[1:], strict=False):
            if start <= self._at < end:
                file.seek(self._at - start)
                data = file.read(min(len(buffer), end - self._at)) or b""
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
