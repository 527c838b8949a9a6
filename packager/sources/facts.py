"""What every source hands back about the checkpoint it has: the record that the package's manifest
will quote."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.audio import wrong_encoder
from packager.checkpoint.vision import wrong_tower
from packager.errors import bad_input
from packager.json_values import JsonObject, at
from packager.runtime import Report
from packager.shape import Shape
from packager.sources.digests import digests
from packager.sources.reread import SMALL

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# What a plan's footprint and forecast stand on. The vocabulary is left out: fine-tunes add tokens
# and pad it as they like.
_SAME = (
    "model_type",
    "hidden",
    "layers",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate",
    "tied",
    "experts",
    "hybrid",
)


def source_facts(report: Report, checkpoint: Checkpoint, **origin: str | None) -> JsonObject:
    """JSON with the path, size and sha256 of every file, `notes` about files that disagree, and the
    `origin`.

    The origin is kind, repo_id, revision and license.
    """
    if checkpoint.ignores_python:
        report.note(
            "It names its own Python code, which is neither read nor run: the first generation is "
            "known here without it."
        )
    for note in checkpoint.notes:
        report.note(note)
    sizes = {name: path.stat().st_size for name, path in checkpoint.files.items()}
    total = sum(sizes.values())
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        report.progress(done, total)

    sha256s = digests(checkpoint.folder, checkpoint.files, count)
    return {
        **origin,
        "folder": str(checkpoint.folder),
        "notes": list(checkpoint.notes),
        **({"quantized": checkpoint.quantized} if checkpoint.quantized else {}),
        "files": [
            {"path": name, "size": sizes[name], "sha256": sha256s[name]}
            for name in checkpoint.files
        ],
    }


def check_addresses(
    checkpoint: Checkpoint, files: Sequence[JsonObject], listed: Mapping[str, str] | None = None
) -> None:
    """Raise PackError (exit code 6) for a file that is not what the hub says, by its listing or by
    its name in the hub's cache.

    Large files lie in `blobs` under the sha256 of their bytes, small ones under git's sha1 of a
    header and the bytes. `listed` are digests by name, which also hold where the disk knows no
    links and a snapshot is made of copies.
    """
    for file in files:
        name, recorded = at(file, "path", str), at(file, "sha256", str)
        path = checkpoint.files[name]
        target = path.resolve()
        address = (listed or {}).get(name) or (target.name if target.parent.name == "blobs" else "")
        if _DIGEST.fullmatch(address) is None or (
            len(address) == 40 and at(file, "size", int) > SMALL
        ):
            continue
        if address != (recorded if len(address) == 64 else _git_sha1(target)):
            raise bad_input(
                f"{path} has changed since it was downloaded: its sha256 is {recorded}.",
                f"Delete {target} and build again.",
            )


def _git_sha1(path: Path) -> str:
    return hashlib.sha1(
        b"blob %d\0" % path.stat().st_size + path.read_bytes(), usedforsecurity=False
    ).hexdigest()


def check_variant(checkpoint: Checkpoint, repo_id: str, planned: JsonObject) -> None:
    """Raise PackError (exit code 6) when a checkpoint has not the shape that the plan was made for;
    `planned` are a Shape's fields."""
    wanted = Shape.from_dict(planned)
    if wanted.vision is not None:
        tower = checkpoint.vision().tower
        if tower != wanted.vision:
            raise wrong_tower(checkpoint.folder, repo_id, wanted.vision, tower)
    if wanted.audio is not None and (encoder := checkpoint.audio().tower) != wanted.audio:
        raise wrong_encoder(checkpoint.folder, repo_id, wanted.audio, encoder)
    if wanted.draft_layers:
        checkpoint.heads()
    for field in _SAME:
        has, needs = getattr(checkpoint.shape, field), getattr(wanted, field)
        if field == "tied" and wanted.task != "generate":
            # No output matrix is built, whether there is one or not.
            continue
        if needs != has:
            raise bad_input(
                f"{checkpoint.folder} is not {repo_id}: its config.json says {field} {has!r} "
                f"instead of {needs!r}.",
                "Name the variant that it was made from with --model.",
            )
