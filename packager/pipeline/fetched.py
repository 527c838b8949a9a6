"""Whether what the cache kept of a fetch is what a build would fetch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from packager.checkpoint import composed as composition
from packager.json_values import WrongKind, at, at_or_none, object_at, objects_at
from packager.pipeline.cache import Entry
from packager.pipeline.job import Job, checkpoint_of


def leads_to_weights(job: Job, entry: Entry) -> bool:
    """Whether a kept fetch leads to a folder where that source's weights can lie: its record may
    come from somebody else."""
    folder, given = entry.facts.get("folder"), at_or_none(job.arguments, "folder", str)
    rows = entry.facts.get("files")
    if (
        not isinstance(folder, str)
        or not isinstance(rows, list)
        or not all(map(_is_file_row, rows))
    ):
        return False
    if not checkpoint_of(entry).is_dir():
        return False
    if "adapters" in job.arguments:
        return _is_composed(job, entry)
    if "describe" in job.arguments:
        return folder == "out" and _is_compared(job, entry)
    if given is not None:
        return Path(folder) == Path(given)
    if "revision" in job.arguments:
        return (
            Path(folder).is_absolute()
            and Path(folder).parent.name == "snapshots"
            and Path(folder).name == entry.facts.get("revision")
        )
    return folder == "out"


def _is_composed(job: Job, entry: Entry) -> bool:
    """Whether a base with adapters is the one that the job would compose."""
    folder, base_folder = Path(at(entry.facts, "folder", str)), entry.facts.get("base")
    composed = composition.read(checkpoint_of(entry))
    if folder.parts[0] != "out" or len(folder.parts) != 2 or composed is None:
        return False
    wanted = [(row["folder"], row["scale"]) for row in objects_at(job.arguments, "adapters")]
    if [(str(path), scale) for path, scale in composed.adapters] != wanted:
        return False
    try:
        rows = objects_at(entry.facts, "adapters")
    except WrongKind:
        return False
    if [(row.get("folder"), row.get("scale")) for row in rows] != wanted:
        return False
    if composed.base != Path(os.path.normpath(checkpoint_of(entry) / str(base_folder))):
        return False
    base = object_at(job.arguments, "base")
    where = "out" if base_folder == "../base" else str(base_folder)
    return leads_to_weights(
        Job("fetch", at(base, "job", str), object_at(base, "arguments")),
        Entry(entry.folder, {**entry.facts, "folder": where}),
    )


def _is_compared(job: Job, entry: Entry) -> bool:
    """Whether an adopted model is compared with the checkpoint that the job names."""
    against, facts = job.arguments["against"], entry.facts.get("against")
    if not isinstance(against, dict) or not isinstance(facts, dict):
        return against is None and facts is None
    name, arguments = at(against, "job", str), object_at(against, "arguments")
    return leads_to_weights(Job("fetch", name, arguments), Entry(entry.folder, facts))


def _is_file_row(row: Any) -> bool:
    kinds = {"path": str, "size": int, "sha256": str}
    return isinstance(row, dict) and all(
        isinstance(row.get(key), kind) for key, kind in kinds.items()
    )
