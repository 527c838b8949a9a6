"""The quality gate and the parity check of a package whose model runs on another machine: logits
come from there, the reference is computed here.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.errors import usage
from packager.events import Event
from packager.files import sha256
from packager.json_values import JsonObject, at, object_at, objects_at
from packager.package.manifest import Manifest
from packager.pipeline.job import Job
from packager.pipeline.run import run_alone
from packager.quality import text
from packager.quality.thresholds import limits, tokens_for
from packager.quality.verdict import judged
from packager.records import Quality
from packager.scratch import temporary_folder

_STAGE = "quality"


def check(known: Manifest, checkpoint: Path) -> None:
    """Raise PackError before anything is measured: exit code 6 for a folder that is not a
    checkpoint, 2 where its weights are not those that the manifest names. Weights that an adapter
    was merged into are named nowhere, and compared with nothing."""
    Checkpoint.open(checkpoint)
    if known.contents.source.adapters:
        return
    for row in objects_at(object_at(known.data, "source"), "files"):
        file = checkpoint / at(row, "path", str)
        if file.suffix != ".safetensors":
            continue
        size, digest = at(row, "size", int), at(row, "sha256", str)
        if not file.is_file() or file.stat().st_size != size or sha256(file) != digest:
            raise usage(
                f"{checkpoint} is not the checkpoint that the package was made from: {file.name} "
                "differs.",
                "Name the folder of the weights that the manifest lists under source.",
            )


def compared(
    model: Path, known: Manifest, checkpoint: Path, session: str, settings: JsonObject, log: Path
) -> Generator[Event, None, Quality]:
    """Yield the events of both jobs, and return what the package lost on that machine against
    `checkpoint`, the unquantized folder that it was made from.

    `model` is the folder of a package whose files were compared with its manifest; `settings` open
    the `session` there. Limits are those by which the build was judged; without any
    the figures are only reported.
    """
    source = Checkpoint.open(checkpoint)
    read: JsonObject = {
        "checkpoint": str(checkpoint.absolute()),
        "text": None,
        "tokens": tokens_for(source.shape.parameters()),
        "context": known.contents.context,
    }
    before = known.contents.quality
    with temporary_folder() as kept:
        (kept / "out").mkdir()
        arguments = {**read, "out": str(kept / "out")}
        job = Job(_STAGE, "packager.quality.job:reference", arguments, needs_out=False)
        wanted = (yield from run_alone(job, log)).value
        why_not = wanted.get("not_possible") or wanted.get("says_nothing")
        arguments = {
            **read,
            "session": session,
            "artifact": str(model),
            "settings": settings,
            "reference": None if why_not else str(kept / "out"),
            "stops": not why_not,
            "profile": _profile(known),
        }
        job = Job(_STAGE, "packager.quality.job:compare", arguments, needs_out=False)
        facts = (yield from run_alone(job, log)).value
    shipped = text.shipped()
    facts = {**facts, "text": {"name": shipped.name, "sha256": shipped.sha256}}
    grade = before.limits.grade if before and before.limits else None
    return judged(facts, limits(grade), str(why_not) if why_not else None, False)


def _profile(known: Manifest) -> JsonObject | None:
    """The profile that the package was built with, see packager.chat.profile."""
    chat = known.contents.chat
    return object_at(chat.to_json(), "profile") if chat and chat.profile else None
