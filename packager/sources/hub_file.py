"""One converted model of a repository of the hub: its file, or all files of it, in the hub's own
cache."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from packager.errors import bad_input, no_room, unreachable, usage
from packager.files import free_bytes
from packager.json_values import JsonObject, at, at_or_none
from packager.names import did_you_mean
from packager.process import run_job
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.sources.mirror import named
from packager.units import human_bytes

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_NAME = re.compile(r"(?:[\w-][\w .+-]*/){0,4}[\w-][\w .+-]*\.gguf", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"(?P<stem>.+-)\d{5}(?P<count>-of-\d{5}\.gguf)")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A model's first file in the hub's cache, and where it came from."""

    path: Path
    repo_id: str
    revision: str
    license: str | None
    endpoint: str | None

    def as_dict(self) -> JsonObject:
        """For the manifest: no path of this machine; a mirror stands beside it."""
        fields = {
            "repo_id": self.repo_id,
            "revision": self.revision,
            "license": self.license,
        }
        return {key: value for key, value in fields.items() if value is not None}


def fetched(repo_id: str, name: str, revision: str | None = None, offline: bool = False) -> HubFile:
    """The model that `--hub-file` names, in the hub's cache. Raises PackError as `fetching`."""
    with closing(fetching(repo_id, name, revision, offline)) as work:
        while True:
            try:
                next(work)
            except StopIteration as stop:
                file: HubFile = stop.value
                return file


def fetching(
    repo_id: str, name: str, revision: str | None = None, offline: bool = False
) -> Generator[object, None, HubFile]:
    """Bring the model that `--hub-file` names into the hub's cache; yields what the download says,
    and ends it where it is closed.

    Raises PackError: exit code 2 for a name that is none, 5 where the hub does not answer or has no
    such file, 6 for one that is not what it lists.
    """
    check_name(repo_id, name)
    arguments = {"repo_id": repo_id, "name": name, "revision": revision, "offline": offline}
    with temporary_folder() as scratch:
        job = "packager.sources.hub_file:download"
        with closing(run_job(job, arguments, scratch / "log", watch=True)) as work:
            value = (yield from work).value
    return HubFile(
        Path(at(value, "path", str)),
        repo_id,
        at(value, "revision", str),
        at_or_none(value, "license", str),
        at_or_none(value, "endpoint", str),
    )


def check_name(repo_id: str, name: str) -> None:
    """Raise PackError (usage) for what names no file of a repository."""
    if not _REPOSITORY.fullmatch(repo_id):
        raise usage(f"{repo_id!r} is not OWNER/NAME on the hub.", "Name the repository.")
    if not _NAME.fullmatch(name):
        raise usage(f"--hub-file names {name!r}, which is not a .gguf file.", "Check its name.")


def download(
    report: Report, *, repo_id: str, name: str, revision: str | None, offline: bool
) -> JsonObject:
    """A job: bring the file and what belongs to it into the hub's cache; returns `path`, the commit
    `revision`, `license` and `endpoint`."""
    from huggingface_hub import constants, snapshot_download

    from packager.sources.hub_download import (
        blob_path,
        remember_branch,
        repository_folder,
    )
    from packager.sources.hub_download import download as fetch_file
    from packager.sources.hub_errors import hub_errors
    from packager.sources.hub_listing import list_files

    matched = _PART.fullmatch(name)

    def wanted(other: str) -> bool:
        part = _PART.fullmatch(other)
        if matched and part:
            return (part["stem"], part["count"]) == (matched["stem"], matched["count"])
        return other == name

    if offline or constants.HF_HUB_OFFLINE:
        with hub_errors(repo_id, revision):
            folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        if not (folder / name).is_file():
            raise unreachable(
                f"{name} of {repo_id} is not in the hub cache.", "Build once without --offline."
            )
        return {"path": str(folder / name), "revision": folder.name}
    listing = list_files(repo_id, revision, lambda other: other.casefold().endswith(".gguf"))
    files = [file for file in listing.files if wanted(file.name)]
    if name not in {file.name for file in files}:
        names = [file.name for file in listing.files]
        raise unreachable(
            f"{repo_id} has no file {name}.{did_you_mean(name, names)}",
            f"It has: {', '.join(names[:8]) or 'no .gguf file'}.",
        )
    if any(len(file.digest) != 64 for file in files if file.size > 1 << 26):
        raise bad_input(f"{repo_id} lists no sha256 of {name}.", "Take another repository.")
    missing = sum(file.size for file in files if not blob_path(repo_id, file).exists())
    home = repository_folder(repo_id)
    if missing > free_bytes(home):
        raise no_room(
            f"{name} needs {human_bytes(missing)} in the hub cache {home.parent} and "
            f"{human_bytes(free_bytes(home))} are free.",
            "Free some space, or move the cache with HF_HOME.",
        )
    done, total = 0, sum(file.size for file in files)

    def on_bytes(size: int) -> None:
        nonlocal done
        done += size
        report.progress(done, total)

    with hub_errors(repo_id, revision):
        for file in files:
            fetch_file(repo_id, listing.commit, file, on_bytes)
    if revision != listing.commit:
        remember_branch(repo_id, revision or "main", listing.commit)
    return {
        "path": str(home / "snapshots" / listing.commit / name),
        "revision": listing.commit,
        "license": listing.license,
        **named(constants.ENDPOINT, "https://huggingface.co"),
    }
