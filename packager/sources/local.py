"""The local source: a folder that the user has, a hub snapshot or anything `save_pretrained` wrote.
It is read, never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import checkpoint_files
from packager.json_values import JsonObject, objects_at
from packager.runtime import Report
from packager.sources.facts import check_addresses, check_variant, source_facts


def fetch(report: Report, *, folder: str, repo_id: str, shape: JsonObject, out: str) -> JsonObject:
    """A job: check and hash the checkpoint in `folder`, which must have the shape that was planned;
    `out` stays unused.

    Raises PackError (exit code 6) naming the file that is corrupt, unsafe, missing or of another
    variant.
    """
    checkpoint = Checkpoint.open(Path(folder))
    check_variant(checkpoint, repo_id, shape)
    facts = source_facts(
        report, checkpoint, kind="local", repo_id=repo_id, revision=None, license=None
    )
    check_addresses(checkpoint, objects_at(facts, "files"))
    return facts


def stamp(folder: Path) -> str:
    """A digest of what `stat` says of every file of the checkpoint: it changes when one of them
    does.

    Raises PackError like `checkpoint_files`.
    """
    digest = hashlib.sha256()
    for name, path in checkpoint_files(folder).items():
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0".encode())
    return digest.hexdigest()
