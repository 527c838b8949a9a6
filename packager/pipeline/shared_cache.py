"""A build cache that several machines share, behind fsspec: a folder, or a bucket.

What stages left lies there as objects named by their sha256, and one record per stage that is
written last. It is foreign input: every byte is compared when it is taken over, and what differs is
removed there and made again. A claim says that somebody is at work on a stage; who waits sees it
renewed, and takes over where it has not been for a while, whatever the clocks say.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from packager.errors import PackError, usage
from packager.files import sha256
from packager.json_values import JsonObject
from packager.package.manifest import FileEntry
from packager.pipeline import stage_record
from packager.pipeline.file_system import answering, is_local, opened, unless_there, written
from packager.pipeline.stage_record import Unfit

SHARED = ("fetch", "convert", "reference", "quality", "imatrix")
"""Stages that are shared. A measurement is of one machine, and stays there."""
LEASE_S = 90.0
"""After so long without a renewal the owner of a claim counts as dead."""
_RENEW_S = 15.0
LOOK_S = 1.0
"""How often somebody who waits looks whether the stage is there."""
_NAME = re.compile(r"(fetch|convert|reference|quality|imatrix)-[0-9a-z]{1,64}")
_CLAIM = re.compile(r"(.+)\.([0-9]{1,6})")
_YOUNG_S = 3600.0
"""Objects younger than that may belong to a record that is about to be written."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record in the store: its stage's name, bytes of its objects, and when it was written
    (seconds since 1970)."""

    name: str
    bytes: int
    written: float
    objects: tuple[str, ...] = ()


class Store:
    """Objects, records and claims below one place, which is made where `make` says so.

    Raises PackError: 2 for what is not a place, 5 where it does not answer.
    """

    def __init__(self, url: str, make: bool = False) -> None:
        self.url = url
        self._fs, self._root = opened(url)
        self._local = is_local(self._fs)
        with answering(url):
            if self._local and make:
                for part in ("objects", "records", "claims"):
                    self._fs.makedirs(f"{self._root}/{part}", exist_ok=True)
            elif not make and not self._fs.exists(f"{self._root}/records"):
                raise usage(f"There is no shared cache at {url}.", "Check the name.")

    # Records and objects.

    def names(self, stage: str, key: str) -> bool:
        """Whether a record of that stage is there."""
        with answering(self.url):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._record(stage, key)))

    def read(self, stage: str, key: str) -> tuple[JsonObject, tuple[FileEntry, ...]] | None:
        """Facts and files of a stage; None where there is none, or one that is damaged, which is
        removed."""
        with answering(self.url):
            try:
                text = self._fs.cat_file(
                    self._record(stage, key), end=stage_record.LARGEST_RECORD + 1
                )
            except FileNotFoundError:
                return None
            try:
                return stage_record.parse(text)
            except Unfit:
                self._remove(self._record(stage, key))
                return None

    def forget(self, stage: str, key: str) -> None:
        """Take the record of a stage away; where that fails, it is looked at again."""
        with contextlib.suppress(OSError):
            self._remove(self._record(stage, key))

    def pull(
        self, stage: str, key: str, folder: Path
    ) -> Generator[int, None, tuple[JsonObject, tuple[FileEntry, ...]] | None]:
        """Bring the files of a stage into `folder`, every byte compared; yields sizes. None where
        it is not there, or not what its record says: then record and bad object are removed."""
        stored = self.read(stage, key)
        if stored is None:
            return None
        for row in stored[1]:
            path = folder / row.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._taken(row, path):
                with answering(self.url):
                    self._remove(self._object(row.sha256))
                    self._remove(self._record(stage, key))
                return None
            yield row.size
        return stored

    def _taken(self, row: FileEntry, path: Path) -> bool:
        """Whether the object came, and is what its name says."""
        with answering(self.url):
            try:
                info = self._fs.info(self._object(row.sha256))
                if info["size"] != row.size or info["type"] != "file" or info.get("islink"):
                    return False
                self._fs.get_file(self._object(row.sha256), str(path))
            except FileNotFoundError:
                return False
        return path.stat().st_size == row.size and sha256(path, follow=False) == row.sha256

    def push(
        self,
        stage: str,
        key: str,
        folder: Path,
        facts: JsonObject,
        files: tuple[FileEntry, ...],
    ) -> Generator[int, None, None]:
        """Give away what a stage left: objects that are not there yet, then the record; yields
        sizes."""
        for row in files:
            with answering(self.url):
                there = self._size(row)
                if there is not None and there != row.size:
                    self._remove(self._object(row.sha256))
                if there != row.size:
                    self._put(folder / row.path, self._object(row.sha256))
            yield row.size
        record = stage_record.sealed(facts, [asdict(row) for row in files])
        with answering(self.url):
            self._write(self._record(stage, key), json.dumps(record).encode())

    def _size(self, row: FileEntry) -> int | None:
        """Bytes of an object as it is there; None where it is not."""
        try:
            return int(self._fs.info(self._object(row.sha256))["size"])
        except FileNotFoundError:
            return None

    def _put(self, source: Path, final: str) -> None:
        """An object, whole or not at all. In a bucket it is written on the condition that nobody
        else has done so meanwhile."""
        if not self._local:
            with unless_there():
                self._fs.put_file(str(source), final, mode="create")
            return
        self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        temporary = f"{final}.{secrets.token_hex(8)}"
        try:
            self._fs.put_file(str(source), temporary)
            Path(temporary).replace(final)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()

    def _write(self, final: str, data: bytes) -> None:
        if not self._local:
            self._fs.pipe_file(final, data)
            return
        from packager.files import write_atomically

        write_atomically(Path(final), data)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def _record(self, stage: str, key: str) -> str:
        return f"{self._root}/records/{stage}-{key}.json"

    def _object(self, digest: str) -> str:
        return f"{self._root}/objects/{digest[:2]}/{digest}"

    # Claims.

    @contextlib.contextmanager
    def claimed(self, stage: str, key: str) -> Iterator[Claim]:
        """A claim on a stage, which `Claim.won` tries to get; given back when the block ends."""
        claim = Claim(self, f"{stage}-{key}")
        try:
            yield claim
        finally:
            claim.give_back()

    def claims(self, name: str) -> dict[int, bytes]:
        """The claims on a stage by their number, with their content."""
        claims: dict[int, bytes] = {}
        with answering(self.url):
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(f"{self._root}/claims", detail=False)
            except FileNotFoundError:
                return claims
            for path in paths:
                match = _CLAIM.fullmatch(str(path).rpartition("/")[2])
                if match and match[1] == name:
                    with contextlib.suppress(FileNotFoundError):
                        claims[int(match[2])] = self._fs.cat_file(path)
        return claims

    def create_claim(self, name: str, number: int, data: bytes) -> bool:
        """Make a claim; False where somebody else has made it: only one can."""
        made = False
        with answering(self.url), unless_there():
            if self._local:
                # fsspec looks whether a local file is there and then writes it, which two can do.
                with Path(self._claim(name, number)).open("xb") as file:
                    file.write(data)
            else:
                self._fs.pipe_file(self._claim(name, number), data, mode="create")
            made = True
        return made

    def renew_claim(self, name: str, number: int, data: bytes) -> None:
        """Write a claim of one's own anew."""
        with answering(self.url):
            self._write(self._claim(name, number), data)

    def remove_claim(self, name: str, number: int) -> None:
        """Take a claim away."""
        with answering(self.url):
            self._remove(self._claim(name, number))

    def _claim(self, name: str, number: int) -> str:
        return f"{self._root}/claims/{name}.{number}"

    # What is there, and how it is kept small.

    def kept(self) -> list[Kept]:
        """Every record, the oldest first. What is not readable as one is passed over."""
        kept = []
        with answering(self.url):
            self._fs.invalidate_cache()
            try:
                rows = self._fs.ls(f"{self._root}/records", detail=True)
            except FileNotFoundError:
                return []
            for row in rows:
                name = str(row["name"]).rpartition("/")[2].removesuffix(".json")
                if not _NAME.fullmatch(name):
                    continue
                known = self.read(*name.split("-", 1))
                if known is not None:
                    files = known[1]
                    objects = tuple(one.sha256 for one in files)
                    size = sum(one.size for one in files)
                    kept.append(Kept(name, size, written(row), objects))
        return sorted(kept, key=lambda one: one.written)

    def evict(self, most_bytes: int | None = None, most_seconds: float | None = None) -> int:
        """Remove the oldest stages until the objects take `most_bytes` at most, and all that are
        older than `most_seconds`; returns the bytes freed. Objects that two stages share stay with
        the one that is left."""
        kept = self.kept()
        sizes = self._sizes()
        now = time.time()
        gone = [
            record
            for record in kept
            if most_seconds is not None and now - record.written > most_seconds
        ]
        left = [record for record in kept if record not in gone]
        while left and most_bytes is not None and self._taking(left, sizes) > most_bytes:
            gone.append(left.pop(0))
        with answering(self.url):
            for record in gone:
                self._remove(f"{self._root}/records/{record.name}.json")
            used = {digest for record in left for digest in record.objects}
            dropped = {digest for record in gone for digest in record.objects}
            freed = 0
            for digest, (size, written) in sizes.items():
                stale = digest in dropped or now - written > _YOUNG_S
                if digest not in used and stale:
                    self._remove(self._object(digest))
                    freed += size
        return freed

    def _taking(self, rows: list[Kept], sizes: dict[str, tuple[int, float]]) -> int:
        used = {digest for record in rows for digest in record.objects}
        return sum(sizes.get(digest, (0, 0.0))[0] for digest in used)

    def _sizes(self) -> dict[str, tuple[int, float]]:
        """Bytes and time of every object."""
        sizes: dict[str, tuple[int, float]] = {}
        with answering(self.url), contextlib.suppress(FileNotFoundError):
            for path, row in self._fs.find(f"{self._root}/objects", detail=True).items():
                digest = str(path).rpartition("/")[2]
                if re.fullmatch(r"[0-9a-f]{64}", digest):
                    sizes[digest] = (int(row["size"]), written(row))
        return sizes


class Claim:
    """One's own claim on a stage, or the wait for somebody else's."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._owner = secrets.token_hex(8)
        self._number: int | None = None
        self._count = 0
        self._seen: tuple[int, bytes, float] | None = None

    def won(self) -> bool:
        """Whether the stage is one's own now. Asked again while it is not: a claim that has not
        been renewed for a lease is passed by."""
        there = self._store.claims(self._name)
        number = max(there, default=0)
        if number and not self._dead(number, there[number]):
            return False
        if self._store.create_claim(self._name, number + 1, self._text()):
            self._number = number + 1
            return True
        return False

    def _dead(self, number: int, content: bytes) -> bool:
        """Whether the newest claim has stood unchanged for a lease, by one's own clock."""
        now = time.monotonic()
        if self._seen is None or self._seen[:2] != (number, content):
            self._seen = (number, content, now)
        return now - self._seen[2] > LEASE_S

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Within the block a thread says again and again that one is still at work."""
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(_RENEW_S):
            if self._number is not None:
                self._count += 1
                with contextlib.suppress(PackError):
                    self._store.renew_claim(self._name, self._number, self._text())

    def give_back(self) -> None:
        """The work is done, or given up: this claim and dead ones before it go."""
        if self._number is None:
            return
        with contextlib.suppress(PackError):
            for number in sorted(self._store.claims(self._name)):
                if number <= self._number:
                    self._store.remove_claim(self._name, number)
        self._number = None

    def _text(self) -> bytes:
        return json.dumps({"owner": self._owner, "count": self._count}).encode()
