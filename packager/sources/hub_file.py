"""One converted model of a repository of the hub: its file, or all files of it, in the hub's own
cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.checkpoint.adapter import TEMPLATE_FILES, TOKENIZER_FILES
from packager.checkpoint.folder import is_license
from packager.errors import PackError, bad_input, no_room, unreachable, usage
from packager.files import free_bytes
from packager.json_values import JsonObject, at, at_or_none
from packager.names import did_you_mean
from packager.process import run_job
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.sources.mirror import named
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.sources.hub_listing import Listing

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_FOLDER = r"(?:[\w-][\w .+-]*/)"
_MAINS = ("openvino_model.xml", "genai_config.json")
"""The file by which a folder is one of a converted model, of either engine."""
_OF_FOLDER = {
    _MAINS[0]: tuple(
        f"openvino_{part}.{ending}"
        for part in ("model", "tokenizer", "detokenizer")
        for ending in ("xml", "bin")
    ),
    _MAINS[1]: (_MAINS[1], "model.onnx", "model.onnx.data"),
}
_TEXTS = frozenset(["config.json", "generation_config.json", *TOKENIZER_FILES, *TEMPLATE_FILES])
_GGUF = re.compile(rf"{_FOLDER}{{0,4}}[\w-][\w .+-]*\.gguf", re.ASCII | re.IGNORECASE)
_CONVERTED = re.compile(
    rf"(?:\./|{_FOLDER}{{1,4}}|{_FOLDER}{{0,4}}(?:{'|'.join(map(re.escape, _MAINS))}))", re.ASCII
)
_PART = re.compile(r"(?P<stem>.+-)\d{5}(?P<count>-of-\d{5}\.gguf)")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A model's first file in the hub's cache, that of a folder the one that makes it a model, and
    where it came from."""

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
    """Raise PackError (usage) for what names no model of a repository."""
    if not _REPOSITORY.fullmatch(repo_id):
        raise usage(f"{repo_id!r} is not OWNER/NAME on the hub.", "Name the repository.")
    if not _GGUF.fullmatch(name) and not _CONVERTED.fullmatch(name):
        raise usage(
            f"--hub-file names {name!r}, which is neither a .gguf file nor a folder.",
            "A folder has a slash at its end (int4-ov/); that of the repository itself is ./ .",
        )


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

    if offline or constants.HF_HUB_OFFLINE:
        with hub_errors(repo_id, revision):
            folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        there = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        main = _main(repo_id, name, [other for other in there if (folder / other).is_file()])
        if main is None or not (folder / main).is_file():
            raise unreachable(
                f"{name} of {repo_id} is not in the hub cache.", "Build once without --offline."
            )
        return {"path": str(folder / main), "revision": folder.name}
    listing = list_files(repo_id, revision, _may_belong)
    main, wanted = _wanted(repo_id, name, listing)
    files = [file for file in listing.files if wanted(file.name)]
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
        "path": str(home / "snapshots" / listing.commit / main),
        "revision": listing.commit,
        "license": listing.license,
        **named(constants.ENDPOINT, "https://huggingface.co"),
    }


def _may_belong(name: str) -> bool:
    """Whether a file of that path can be one of a converted model."""
    own = PurePosixPath(name).name
    converted = any(own in names for names in _OF_FOLDER.values())
    return own.casefold().endswith(".gguf") or converted or own in _TEXTS or is_license(own)


def _main(repo_id: str, name: str, names: Collection[str]) -> str | None:
    """The path of the file that `--hub-file` means: itself, or what makes its folder one of a
    converted model; None where the folder has neither. Raises PackError (usage) for both."""
    if not name.endswith("/"):
        return name
    head = "" if name == "./" else name
    mains = [head + main for main in _MAINS if head + main in names]
    if len(mains) > 1:
        raise usage(
            f"The folder {name} of {repo_id} holds a model for each of two engines.",
            f"Name one with --hub-file {mains[0]} or --hub-file {mains[1]}.",
        )
    return mains[0] if mains else None


def _wanted(repo_id: str, name: str, listing: Listing) -> tuple[str, Callable[[str], bool]]:
    """The path of the first file, and which files belong to it. Raises PackError as `fetching`."""
    names = [file.name for file in listing.files]
    main = _main(repo_id, name, names)
    if main is None or main not in names:
        raise _nothing_of_that_name(repo_id, name, names)
    asked = PurePosixPath(main)
    if asked.name in _MAINS:
        beside = {*_OF_FOLDER[asked.name], *_TEXTS}

        def in_folder(other: str) -> bool:
            path = PurePosixPath(other)
            return path.parent == asked.parent and (path.name in beside or is_license(path.name))

        return main, in_folder
    matched = _PART.fullmatch(main)

    def of_file(other: str) -> bool:
        part = _PART.fullmatch(other)
        if matched and part:
            return (part["stem"], part["count"]) == (matched["stem"], matched["count"])
        return other == main

    return main, of_file


def _nothing_of_that_name(repo_id: str, name: str, names: list[str]) -> PackError:
    """What the repository has in place of it (exit code 5)."""
    files = [other for other in names if other.casefold().endswith(".gguf")]
    folders = sorted({_folder(other) for other in names if PurePosixPath(other).name in _MAINS})
    offered = [*files, *folders]
    has = f"It has: {', '.join(offered[:8]) or 'no model that was converted already'}."
    if name.endswith("/"):
        main = " or ".join(_MAINS)
        return unreachable(f"The folder {name} of {repo_id} has no {main}.", has)
    return unreachable(f"{repo_id} has no file {name}.{did_you_mean(name, offered)}", has)


def _folder(name: str) -> str:
    """The folder of a file as `--hub-file` names it."""
    parent = PurePosixPath(name).parent.as_posix()
    return "./" if parent == "." else f"{parent}/"
