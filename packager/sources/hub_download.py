"""Download files into the user's own hub cache, resumed across runs, and accepted only when their
digest is right.

The layout is the hub's (`blobs/<digest>`, `snapshots/<commit>/<name>` linked to them), so every
other tool finds the files. The client's own download starts a file again after an interruption and
keeps whatever bytes came; with files of gigabytes over a home connection neither will do. Plain
HTTP is used throughout: the faster Xet protocol has no half-finished state that could be kept
either.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.file_download import repo_folder_name

# Documented, but not re-exported in the way that type checkers ask for.
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from packager.errors import PackError, unreachable
from packager.files import sha256
from packager.sources import resumed
from packager.sources.hub_errors import WAYS_ON
from packager.sources.hub_listing import RemoteFile

_CHUNK = 1 << 20


def repository_folder(repo_id: str) -> Path:
    """Where the hub cache keeps a repository."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")


def blob_path(repo_id: str, file: RemoteFile) -> Path:
    """Where the hub cache keeps the bytes of a file."""
    return repository_folder(repo_id) / "blobs" / file.digest


def partial_path(blob: Path) -> Path:
    """Where the part that has come lies until it is whole and checked."""
    return blob.with_name(f"{blob.name}.qwen-pack.incomplete")


def download(repo_id: str, commit: str, file: RemoteFile, on_bytes: Callable[[int], None]) -> Path:
    """Bring one file into the cache unless it is there, and return its path in the snapshot;
    `on_bytes` hears of its bytes.

    Raises PackError (exit code 5) when its size or digest is not what the hub listed: nothing of it
    is kept then. Raises the client's exceptions when the connection fails; what has come by then is
    kept for the next run.
    """
    blob = blob_path(repo_id, file)
    lock = (
        Path(constants.HF_HUB_CACHE)
        / ".locks"
        / repository_folder(repo_id).name
        / f"{file.digest}.lock"
    )
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            on_bytes(file.size)
        else:
            incomplete = partial_path(blob)
            address = hf_hub_url(repo_id, file.name, revision=commit)
            try:
                resumed.complete(
                    partial(_opened, address),
                    incomplete,
                    file.size,
                    on_bytes,
                    partial(_altered, file),
                )
                if _digest(incomplete, file) != file.digest:
                    raise _altered(file, "does not have the digest that the hub lists")
            except PackError:
                incomplete.unlink(missing_ok=True)
                raise
            incomplete.replace(blob)
        return _link(blob, repository_folder(repo_id) / "snapshots" / commit / file.name)


@contextlib.contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    asked = {**build_hf_headers(), **headers}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=asked, timeout=timeout) as response:
        hf_raise_for_status(response)
        yield response


def _altered(file: RemoteFile, how: str) -> PackError:
    return unreachable(
        f"What came for {file.name} {how}; nothing was kept.",
        f"Try again, or look at HF_ENDPOINT. {WAYS_ON}",
    )


def _digest(path: Path, file: RemoteFile) -> str:
    """The digest of the bytes in the form of `file.digest`: sha256, or git's sha1 over a header and
    the bytes."""
    if len(file.digest) == 64:
        return sha256(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        # In pieces: only genuine hubs keep nothing larger than 10 MB outside of large-file storage.
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _link(blob: Path, pointer: Path) -> Path:
    """The snapshot's name for a blob: a relative link, or a copy where the disk knows no links."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            shutil.copyfile(blob, pointer)
    return pointer


def remember_branch(repo_id: str, branch: str, commit: str) -> None:
    """Note which commit a branch or tag stands for, so that `--offline` finds the snapshot by that
    name."""
    refs = repository_folder(repo_id) / "refs"
    path = refs / branch
    if path.resolve().is_relative_to(refs.resolve()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit, encoding="utf-8")
