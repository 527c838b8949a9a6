"""What every source hands back about the checkpoint it has: the record that the package's manifest
will quote."""

from __future__ import annotations

from typing import Any

from packager.checkpoint import Checkpoint
from packager.errors import bad_input
from packager.runtime import Report
from packager.shape import Shape
from packager.sources.digests import digests

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


def source_facts(report: Report, checkpoint: Checkpoint, **origin: str | None) -> dict[str, Any]:
    """JSON with the path, size and sha256 of every file, `notes` about files that disagree, and the
    `origin`.

    The origin is kind, repo_id, revision and license.
    """
    if checkpoint.ignores_python:
        report.note(
            "It names Python of its own, which is left alone, unread: the first generation is "
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

    found = digests(checkpoint.folder, checkpoint.files, count)
    return {
        **origin,
        "folder": str(checkpoint.folder),
        "notes": list(checkpoint.notes),
        "files": [
            {"path": name, "size": sizes[name], "sha256": found[name]} for name in checkpoint.files
        ],
    }


def check_variant(checkpoint: Checkpoint, repo_id: str, planned: dict[str, Any]) -> None:
    """Raise PackError (exit code 6) when a checkpoint has not the shape that the plan was made for;
    `planned` are a Shape's fields."""
    for field in _SAME:
        has, needs = getattr(checkpoint.shape, field), getattr(Shape.from_dict(planned), field)
        if needs != has:
            raise bad_input(
                f"{checkpoint.folder} is no {repo_id}: its config.json says {field} {has!r} "
                f"instead of {needs!r}.",
                "Name the variant that it was made from with --model.",
            )
