"""The ModelScope source: one revision of a repository, in the cache that its own client uses.

The layout is the client's (`models/OWNER--NAME/snapshots/REVISION/FILE`), so it finds what was
fetched here, and what it has fetched is taken where size and digest are right.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx

# Documented, but not re-exported in the way that type checkers ask for.
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import is_weights
from packager.errors import PackError, no_room, unreachable, usage
from packager.files import free_bytes, sha256
from packager.json_values import JsonObject, objects_at
from packager.runtime import Report
from packager.sources import resumed
from packager.sources.facts import check_addresses, check_variant, source_facts
from packager.sources.hub import refuse_early
from packager.sources.mirror import named
from packager.sources.modelscope_api import (
    BRANCH,
    DEFAULT,
    WAYS_ON,
    Listing,
    RemoteFile,
    endpoint,
    file_address,
    list_checkpoint,
    opened,
    server_errors,
)
from packager.units import human_bytes

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    report: Report,
    *,
    repo_id: str,
    revision: str | None,
    shape: JsonObject,
    offline: bool,
    out: str,
) -> JsonObject:
    """A job: bring a checkpoint into ModelScope's cache and hand back its snapshot folder; `out`
    stays unused.

    Raises PackError: exit code 5 when the server cannot be reached, does not let us in or sends
    other bytes than it lists; 6 naming the file that is unsafe or not what was planned; 7 when the
    disk has not enough room.
    """
    listed: dict[str, str] = {}
    if offline:
        folder = _cached(repo_id, revision)
        commit = folder.name if _COMMIT.fullmatch(folder.name) else None
    else:
        listing = list_checkpoint(repo_id, revision)
        folder, commit = _download(report, repo_id, listing), listing.commit
        listed = {file.name: file.sha256 for file in listing.files}
    checkpoint = Checkpoint.open(folder)
    check_variant(checkpoint, repo_id, shape)
    facts = source_facts(
        report, checkpoint, kind="modelscope", repo_id=repo_id, revision=commit, license=None
    )
    check_addresses(checkpoint, objects_at(facts, "files"), listed)
    return {**facts, **named(endpoint(), DEFAULT)}


def cache_folder() -> Path:
    """The root of ModelScope's cache, as its client finds it."""
    given = os.environ.get("MODELSCOPE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "modelscope"


def _repository_folders(repo_id: str) -> list[Path]:
    """Where the client keeps a repository, and where older ones did."""
    owner, _, name = repo_id.partition("/")
    plain, root = name.replace(".", "___"), cache_folder()
    return [
        root / "models" / f"{owner}--{name}",
        root / "models" / owner / plain,
        root / "hub" / "models" / owner / plain,
    ]


def _snapshots(repo_id: str) -> Iterator[Path]:
    """Every folder that may hold files of a repository."""
    new, *old = _repository_folders(repo_id)
    with contextlib.suppress(OSError):
        yield from sorted(path for path in (new / "snapshots").iterdir() if path.is_dir())
    yield from (path for path in old if path.is_dir())


def _cached(repo_id: str, revision: str | None) -> Path:
    """The snapshot that is in the cache already."""
    there = [path for path in _snapshots(repo_id) if (path / "config.json").is_file()]
    wanted = [path for path in there if path.name == revision] if revision else there
    if not wanted:
        at = f" at revision {revision}" if revision else ""
        raise unreachable(
            f"{repo_id}{at} is not in ModelScope's cache {cache_folder()}.",
            f"Build once without --offline. {WAYS_ON}",
        )
    if len(wanted) > 1:
        branch = [path for path in wanted if path.name == BRANCH]
        if not branch:
            raise usage(
                f"ModelScope's cache has {len(wanted)} revisions of {repo_id}.",
                f"Name one with --revision, such as {wanted[-1].name}.",
            )
        return branch[0]
    return wanted[0]


def _download(report: Report, repo_id: str, listing: Listing) -> Path:
    pinned = listing.commit or listing.revision
    report.note(f"{repo_id} at {'commit' if listing.commit else 'revision'} {pinned}")
    if listing.commit is None:
        report.note("No commit is known for it: the digests of the files pin what was fetched.")
    folder = _repository_folders(repo_id)[0] / "snapshots" / pinned.replace("/", "--")
    missing = sum(file.size for file in listing.files if not _right_size(folder, file))
    if missing > free_bytes(folder):
        raise no_room(
            f"{repo_id} needs {human_bytes(missing)} in {cache_folder()} and "
            f"{human_bytes(free_bytes(folder))} are free.",
            "Free some space, or move the cache with MODELSCOPE_CACHE.",
        )
    total, done = sum(file.size for file in listing.files), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        report.progress(done, total)

    others = [path for path in _snapshots(repo_id) if path != folder]
    # Small files first: what they refuse costs no gigabytes.
    for weights in (False, True):
        if weights:
            refuse_early(folder, sum(file.size for file in listing.files if is_weights(file.name)))
        for file in listing.files:
            if is_weights(file.name) is weights:
                with server_errors(repo_id, pinned):
                    _get(repo_id, pinned, folder, file, others, count)
    return folder


def _right_size(folder: Path, file: RemoteFile) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size


def _get(
    repo_id: str,
    revision: str,
    folder: Path,
    file: RemoteFile,
    others: list[Path],
    count: Callable[[int], None],
) -> None:
    """One file: the one that is there, one of another snapshot, or the server's."""
    path = folder / file.name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise unreachable(f"{endpoint()} lists a file {file.name!r}.", WAYS_ON)
    if _is_right(path, file):
        count(file.size)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _repository_folders(repo_id)[0] / ".locks" / f"{file.sha256}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Another build may be fetching the same file: its part is not written by two at once.
    with WeakFileLock(lock):
        for place in (folder, *others):
            there = place / file.name
            if _is_right(there, file):
                if place != folder:
                    path.unlink(missing_ok=True)
                    _linked(there, path)
                count(file.size)
                return
        _complete(file_address(repo_id, revision, file.name), path, file, count)


def _is_right(path: Path, file: RemoteFile) -> bool:
    """Whether there is a file with exactly the bytes that the server lists."""
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == file.size
        and sha256(path) == file.sha256
    )


def _complete(address: str, path: Path, file: RemoteFile, count: Callable[[int], None]) -> None:
    """The server's file, in its place once it is whole and checked."""
    incomplete = path.with_name(f".{path.name}.{file.sha256[:12]}.qwen-pack.incomplete")
    resumed.complete(
        partial(_checked, address), incomplete, file.size, count, partial(_altered, file)
    )
    if sha256(incomplete) != file.sha256:
        incomplete.unlink()
        raise _altered(file, "does not have the sha256 that the server lists")
    incomplete.replace(path)


def _linked(there: Path, path: Path) -> None:
    try:
        os.link(there, path)
    except OSError:
        shutil.copyfile(there, path)


@contextlib.contextmanager
def _checked(address: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    with opened(address, headers) as response:
        response.raise_for_status()
        yield response


def _altered(file: RemoteFile, how: str) -> PackError:
    return unreachable(
        f"What came for {file.name} {how}; nothing was kept.",
        f"Try again, or look at MODELSCOPE_ENDPOINT. {WAYS_ON}",
    )
