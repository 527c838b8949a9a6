"""LoRA adapters as a source: a folder or a repository of the hub, with a scale; and the checkpoint
that a base and adapters make together."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from packager import catalog
from packager.checkpoint.adapter import CONFIG, WEIGHTS, Adapter, adapter_file
from packager.checkpoint.header import TensorInfo
from packager.errors import bad_input, usage
from packager.files import expanded
from packager.json_values import JsonObject, JsonValue, at, at_or_none, object_at, objects_at
from packager.names import plain_name
from packager.process import resolve, run_job
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.shape import Shape, tensors
from packager.sources.digests import digests

_SPEC = re.compile(r"(?P<place>.+?)(:(?P<scale>[-+]?[0-9.]+(e[-+]?[0-9]+)?))?", re.IGNORECASE)
_REPOSITORY = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """An adapter in `folder` (absolute) times `scale`; `repo_id` and the commit `revision` where it
    came from the hub."""

    folder: str
    scale: float = 1.0
    repo_id: str | None = None
    revision: str | None = None

    @property
    def location(self) -> str:
        """Where it comes from, without the folders of this machine."""
        return self.repo_id or plain_name(Path(self.folder).name)

    def open(self) -> Adapter:
        """The adapter. Raises PackError as `Adapter.open`."""
        return Adapter.open(Path(self.folder), self.scale)


def parse(
    specs: Sequence[str], offline: bool = False, flag: str = "--lora"
) -> tuple[AdapterSource, ...]:
    """What `--lora DIR|REPO[@REV][:scale]` names, or another `flag`, fetched where it lies on the
    hub.

    Raises PackError: exit code 2 for what is neither, or twice the same; 5 where the hub does not
    answer; 6 for a repository without an adapter.
    """
    adapters = tuple(_parsed(spec, offline, flag) for spec in specs)
    for source in adapters:
        if [other.folder for other in adapters].count(source.folder) > 1:
            raise usage(
                f"--lora names {source.location} twice.",
                "Name it once, with the sum of its scales.",
            )
    return adapters


def _parsed(spec: str, offline: bool, flag: str) -> AdapterSource:
    location, scale = spec, 1.0
    if not expanded(spec).is_dir():
        matched = _SPEC.fullmatch(spec)
        if matched is not None and matched["scale"] is not None:
            location = matched["place"]
            try:
                scale = float(matched["scale"])
            except ValueError:
                scale = math.nan
    if not math.isfinite(scale) or scale == 0:
        raise usage(f"{flag} {spec!r} has no usable scale.", "Write for example DIR:0.5.")
    folder = expanded(location).absolute()
    if folder.is_dir():
        return AdapterSource(os.path.normpath(folder), scale)
    repository = _REPOSITORY.fullmatch(location)
    if repository is None or location.startswith(("/", ".", "~")):
        raise usage(
            f"{flag} names {location!r}, which is neither a folder nor OWNER/NAME on the hub.",
            "Name the folder that PEFT saved the adapter into.",
        )
    path, commit = _on_hub(repository["repo"], repository["revision"], offline)
    return AdapterSource(str(path), scale, repository["repo"], commit)


def _on_hub(repo_id: str, revision: str | None, offline: bool) -> tuple[Path, str]:
    arguments = {"repo_id": repo_id, "revision": revision, "offline": offline}
    with temporary_folder() as scratch:
        job = "packager.sources.adapters:download"
        with closing(run_job(job, arguments, scratch / "log")) as work:
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    value = stop.value.value
                    return Path(value["folder"]), str(value["revision"])


def download(report: Report, *, repo_id: str, revision: str | None, offline: bool) -> JsonObject:
    """A job: bring an adapter into the hub's cache; returns `folder` and the commit `revision`."""
    from huggingface_hub import constants, snapshot_download

    from packager.sources.hub_download import download as fetch_file
    from packager.sources.hub_download import remember_branch, repository_folder
    from packager.sources.hub_errors import hub_errors
    from packager.sources.hub_listing import list_files

    if offline or constants.HF_HUB_OFFLINE:
        with hub_errors(repo_id, revision):
            cached = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        return {"folder": str(cached), "revision": cached.name}
    listing = list_files(repo_id, revision, adapter_file)
    names = {file.name for file in listing.files}
    if not {CONFIG, WEIGHTS} <= names:
        raise bad_input(
            f"{repo_id} holds no adapter: {CONFIG} and {WEIGHTS} are not both there.",
            "Name a repository that PEFT saved a LoRA adapter to, as safetensors.",
        )
    with hub_errors(repo_id, revision):
        for file in listing.files:
            fetch_file(repo_id, listing.commit, file, lambda size: None)
    if revision != listing.commit:
        remember_branch(repo_id, revision or "main", listing.commit)
    folder = repository_folder(repo_id) / "snapshots" / listing.commit
    return {"folder": str(folder), "revision": listing.commit}


def base_named(adapters: Sequence[AdapterSource]) -> str:
    """The catalogue's variant that the adapters say they were trained on.

    Raises PackError (usage) where they name none that is known.
    """
    named = {source.open().base for source in adapters}
    known = {name for name in named if name and _known(name)}
    if len(known) != 1:
        names = ", ".join(sorted(repr(name) for name in named if name)) or "none"
        raise usage(
            f"Which base do the adapters belong to? They name {names}.",
            "Name it with --model or --weights.",
        )
    return known.pop()


def _known(name: str) -> bool:
    return any(row.repo_id.casefold() == name.casefold() for row in catalog.load())


def adapted(shape: Shape, repo_id: str, adapters: Sequence[AdapterSource]) -> Shape:
    """The shape that a base of that shape has with the adapters in it, at most: whether an output
    matrix is still the embedding is seen when there are numbers.

    Raises PackError (exit code 6) for an adapter that does not belong to it.
    """
    # Late: numpy, which only adapters need here.
    from packager.checkpoint.merge import merge

    rows = {
        spec.name: TensorInfo(spec.name, "BF16", spec.shape, Path(), 0, 2 * prod(spec.shape))
        for spec in tensors(shape)
    }
    for source in adapters:
        adapter = source.open()
        refuse_other_base(adapter, repo_id, None)
        shape, rows = merge(shape, rows, adapter, numbers=False)
    return shape


def refuse_other_base(adapter: Adapter, repo_id: str, revision: str | None) -> None:
    """Raise PackError (exit code 6) for an adapter that says it belongs to another variant of the
    catalogue, or to another commit."""
    if (
        adapter.base
        and adapter.base.casefold() != repo_id.casefold()
        and _known(adapter.base)
        and _known(repo_id)
    ):
        raise bad_input(
            f"The adapter in {adapter.folder} was trained on {adapter.base} and not on {repo_id}.",
            f"Build it with --model {adapter.base}.",
        )
    same = (adapter.base or "").casefold() == repo_id.casefold()
    commits = [text for text in (adapter.revision, revision) if text and _COMMIT.fullmatch(text)]
    if same and len(commits) == 2 and commits[0] != commits[1]:
        raise bad_input(
            f"The adapter in {adapter.folder} was trained on commit {commits[0]} of {repo_id}, and "
            f"the weights are of {commits[1]}.",
            f"Take that commit: --revision {commits[0]}.",
        )


def fetch(report: Report, *, base: JsonObject, adapters: list[JsonObject], out: str) -> JsonObject:
    """A job: fetch the base by its own job, and write the checkpoint that it is with its adapters.

    `base` has `job` and `arguments`. The facts are those of the base, and `base`, its folder seen
    from the composed one, and `adapters` with the digests of their files. Raises PackError: exit
    code 6 for an adapter that does not belong to the base.
    """
    # Late: the opened checkpoint needs numpy with adapters.
    from packager.checkpoint import Checkpoint
    from packager.checkpoint.composed import compose

    arguments, given = object_at(base, "arguments"), msgspec.convert(adapters, list[AdapterSource])
    home = Path(out)
    home.mkdir(parents=True, exist_ok=True)
    facts: JsonObject = resolve(at(base, "job", str))(report, **arguments, out=str(home / "base"))
    root = Path(at(facts, "folder", str))
    opened = [source.open() for source in given]
    for adapter in opened:
        refuse_other_base(
            adapter, at(arguments, "repo_id", str), at_or_none(facts, "revision", str)
        )
    folder = home / (root.name if facts["kind"] == "local" else _CHECKPOINT)
    compose(folder, root, opened)
    checkpoint = Checkpoint.open(folder)
    rows = [
        _described(report, source, adapter) for source, adapter in zip(given, opened, strict=True)
    ]
    if checkpoint.shape.vocab != Checkpoint.open(root).shape.vocab:
        report.note(f"the vocabulary has {checkpoint.shape.vocab} rows with the adapter")
    inside = root.is_relative_to(home)
    seen_from_there = os.path.relpath(root, folder) if inside else str(root)
    return {**facts, "folder": str(folder), "base": seen_from_there, "adapters": rows}


def _described(report: Report, source: AdapterSource, adapter: Adapter) -> JsonObject:
    """What the manifest says of an adapter; `folder` is left out there."""
    sha256s = digests(adapter.folder, adapter.files, lambda size: None)
    report.note(
        f"adapter {source.location}, {len(adapter.low_rank)} matrices, scale {source.scale:g}"
    )
    return {
        "location": source.location,
        "repo_id": source.repo_id,
        "revision": source.revision,
        "scale": source.scale,
        "base": adapter.base,
        "folder": source.folder,
        "files": [
            {"path": name, "size": path.stat().st_size, "sha256": sha256s[name]}
            for name, path in sorted(adapter.files.items())
        ],
    }


def stamp(adapters: Sequence[AdapterSource]) -> str:
    """A text that changes whenever what is merged would: by what `stat` says of every file."""
    return repr([list(_stamps(source)) for source in adapters])


def _stamps(source: AdapterSource) -> Iterator[Any]:
    yield source.folder, source.scale
    for name, path in sorted(source.open().files.items()):
        status = path.stat()
        yield name, status.st_size, status.st_mtime_ns, status.st_ino


def inputs_of(facts: JsonObject) -> JsonValue:
    """What of a fetched checkpoint decides about the bytes that are made of it, for a key: files,
    and adapters with their scales."""
    if not facts.get("adapters"):
        return facts["files"]
    rows = [{"scale": row["scale"], "files": row["files"]} for row in objects_at(facts, "adapters")]
    return {"files": facts["files"], "adapters": rows}


def recorded(facts: JsonObject) -> list[JsonObject]:
    """The manifest's `source.adapters[]`."""
    return [
        {key: value for key, value in row.items() if key != "folder"}
        for row in objects_at(facts, "adapters")
    ]


def as_arguments(adapters: Sequence[AdapterSource]) -> list[JsonObject]:
    """The adapters as JSON, for `fetch`."""
    return [asdict(source) for source in adapters]
