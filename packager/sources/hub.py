"""The hub source: one commit of a repository, through the user's own cache, token and
HF_ENDPOINT."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint
from packager.checkpoint.agreement import quantized_by_size, refuse_foreign_code
from packager.checkpoint.first_generation import text_only
from packager.checkpoint.folder import is_weights, read_json
from packager.errors import no_room
from packager.files import free_bytes
from packager.json_values import JsonObject, objects_at
from packager.runtime import Report
from packager.sources.facts import check_addresses, check_variant, source_facts
from packager.sources.mirror import named
from packager.units import human_bytes

_CONNECTIONS = 4
_HUB = "https://huggingface.co"


def fetch(
    report: Report,
    *,
    repo_id: str,
    revision: str | None,
    shape: JsonObject,
    offline: bool,
    out: str,
) -> JsonObject:
    """A job: bring a checkpoint into the hub cache and hand back its snapshot folder; `out` stays
    unused.

    Raises PackError: exit code 5 when the hub cannot be reached, does not let us in or sends other
    bytes than it lists; 6 naming the file that is unsafe or not what was planned; 7 when the disk
    has not enough room.
    """
    # The client takes a third of a second to import and reads its settings then: only this job's
    # process pays for it.
    from huggingface_hub import constants

    license_id = None
    listed: dict[str, str] = {}
    if offline or constants.HF_HUB_OFFLINE:
        folder = _cached(repo_id, revision)
    else:
        folder, license_id, listed = _download(report, repo_id, revision)
    checkpoint = Checkpoint.open(folder)
    check_variant(checkpoint, repo_id, shape)
    facts = source_facts(
        report, checkpoint, kind="hub", repo_id=repo_id, revision=folder.name, license=license_id
    )
    check_addresses(checkpoint, objects_at(facts, "files"), listed)
    return {**facts, **named(constants.ENDPOINT, _HUB)}


def _cached(repo_id: str, revision: str | None) -> Path:
    """The snapshot that is in the cache already, by commit or by the branch it was fetched for."""
    from huggingface_hub import snapshot_download

    from packager.sources.hub_errors import hub_errors

    with hub_errors(repo_id, revision):
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True))


def _download(
    report: Report, repo_id: str, revision: str | None
) -> tuple[Path, str | None, dict[str, str]]:
    """The snapshot folder, named after its full commit hash, the licence that the repository
    declares, and the digests it lists."""
    from packager.sources.hub_download import (
        blob_path,
        download,
        partial_path,
        remember_branch,
        repository_folder,
    )
    from packager.sources.hub_errors import hub_errors
    from packager.sources.hub_listing import list_checkpoint

    listing = list_checkpoint(repo_id, revision)
    report.note(f"{repo_id} at commit {listing.commit}")
    missing = 0
    for file in listing.files:
        blob = blob_path(repo_id, file)
        if not blob.exists():
            partial = partial_path(blob)
            missing += file.size - (partial.stat().st_size if partial.exists() else 0)
    home = repository_folder(repo_id)
    if missing > free_bytes(home):
        raise no_room(
            f"{repo_id} needs {human_bytes(missing)} more in the hub cache {home.parent} and "
            f"{human_bytes(free_bytes(home))} are free.",
            "Free some space, or move the cache with HF_HOME.",
        )
    count = _Counter(report, sum(file.size for file in listing.files))

    def get(files: Sequence[Any]) -> None:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(lambda file: download(repo_id, listing.commit, file, count), files))

    with hub_errors(repo_id, revision):
        # Small files first: what they refuse costs no gigabytes.
        get([file for file in listing.files if not is_weights(file.name)])
        folder = home / "snapshots" / listing.commit
        refuse_early(folder, sum(file.size for file in listing.files if is_weights(file.name)))
        get([file for file in listing.files if is_weights(file.name)])
    if revision != listing.commit:
        remember_branch(repo_id, revision or "main", listing.commit)
    return folder, listing.license, {file.name: file.digest for file in listing.files}


def refuse_early(folder: Path, weight_bytes: int) -> None:
    """Raise PackError (exit code 6) for what the small files of a snapshot say already, before
    weights are fetched."""
    first = False
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            config = read_json(folder / name)
            first = first or text_only(config)
            refuse_foreign_code(folder / name, config, first=first)
            if name == "config.json":
                quantized_by_size(folder / name, config, weight_bytes)


class _Counter:
    """Bytes that have come, over all connections."""

    def __init__(self, report: Report, total: int) -> None:
        self._progress: Callable[[int, int | None], None] = report.progress
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress(self._done, self._total)
