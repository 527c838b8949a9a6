"""The files of a checkpoint read again while they are used, and compared with the digests that the
package will name.

A digest may be older than the use: remembered by what `stat` says, or kept in the cache. A disk
that rots changes neither size nor time, so only the bytes prove that what was converted is what
provenance names.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError, bad_input
from packager.files import hashing
from packager.json_values import JsonObject, at, at_or_none, objects_at

SMALL = 64 << 20
"""No description, tokenizer or licence of a checkpoint is larger; nearly all weights are."""

_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Evidence:
    """A checkpoint's folder, and of the files that are used the size and sha256 that were recorded;
    those of adapters and of their base by their whole paths."""

    folder: Path
    files: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, folder: Path, facts: JsonObject, largest: int | None = None) -> Evidence:
        """From the facts of a source; with `largest`, without files of more bytes."""
        base = at_or_none(facts, "base", str)
        rows = _rows(facts, None if base is None else folder / base)
        for adapter in objects_at(facts, "adapters"):
            rows += _rows(adapter, Path(at(adapter, "folder", str)))
        return cls(folder, tuple(row for row in rows if largest is None or row[1] <= largest))

    def check(self) -> None:
        """Read all of them now. Raises PackError (exit code 6) naming the first that has
        changed."""
        with comparing(self) as comparison:
            while comparison.reading():
                pass
            comparison.check()


def _rows(facts: JsonObject, below: Path | None) -> list[tuple[str, int, str]]:
    """`files[]` of a source; their paths below a folder, where there is one."""
    return [
        (
            str((below or Path()) / at(row, "path", str)),
            at(row, "size", int),
            at(row, "sha256", str),
        )
        for row in objects_at(facts, "files")
    ]


class Comparison:
    """Reads in a thread; `done` of `total` bytes are compared."""

    def __init__(self, evidence: Evidence | None) -> None:
        self._evidence = evidence
        self._wrong: PackError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.done = 0
        self.total = sum(size for _, size, _ in evidence.files) if evidence else 0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def reading(self) -> bool:
        """Whether there is something left to be read, after waiting for it a little."""
        self._thread.join(_WAIT_S)
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise PackError (exit code 6) where a file that was read so far is not what was
        recorded."""
        if self._wrong is not None:
            raise self._wrong

    def stop(self) -> None:
        """Read no further."""
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        for name, size, digest in self._evidence.files if self._evidence else ():
            path = self._evidence.folder / name if self._evidence else Path(name)
            try:
                same = self._same(path, size, digest)
            except OSError as error:
                self._wrong = bad_input(
                    f"{path} cannot be read any more: {error.strerror}.",
                    "Get the file again from where it came from.",
                )
                return
            if self._stop.is_set():
                return
            if not same:
                self._wrong = _changed(path)
                return

    def _same(self, path: Path, size: int, digest: str) -> bool:
        """Links are followed: the hub's cache is made of them."""
        work, read = hashing(path), 0
        with contextlib.closing(work):
            while not self._stop.is_set():
                try:
                    step = next(work)
                except StopIteration as stop:
                    return bool(stop.value == digest and read == size)
                read += step
                self.done += step
        return False


@contextlib.contextmanager
def comparing(evidence: Evidence | None) -> Iterator[Comparison]:
    """Compare in the background while the block runs; None compares nothing. The block asks with
    `reading` and `check`."""
    comparison = Comparison(evidence)
    comparison.start()
    try:
        yield comparison
    finally:
        comparison.stop()


def _changed(path: Path) -> PackError:
    where = path.resolve()
    way = "Get it again from where it was published; the disk may be failing."
    if where.parent.name == "blobs":
        way = f"Delete {where} and build again; the disk may be failing."
    return bad_input(
        f"{path} is not what it was when its digest was taken, although its size and time may be: "
        "nothing is built from it.",
        way,
    )
