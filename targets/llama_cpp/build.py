"""Checkpoint -> quantized GGUF. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.chat.profile import Profile
from packager.digests import key_of
from packager.errors import bad_input
from packager.pipeline.cache import BuildCache, whole
from packager.plan.additions import file_facts
from packager.runtime import Report
from targets.gguf import library
from targets.gguf.convert import convert
from targets.gguf.imatrix import read_imatrix
from targets.gguf.presets import projector_type
from targets.gguf.projector import convert_projector
from targets.gguf.tower import FILE as PROJECTOR
from targets.llama_cpp.importance import CALIBRATED_AS

MODEL_FILE = "model.gguf"
IMATRIX_FILE = "imatrix.gguf"


def build(
    report: Report, *, checkpoint: str, recipe: dict[str, Any], workload: dict[str, Any], out: str
) -> dict[str, Any]:
    """The runtime's build job: writes `model.gguf`, or files below the workload's limit, into `out`
    and returns what the manifest keeps; with pictures also `mmproj.gguf`.

    `recipe` holds beside its own fields the `inputs` of the build: `origin` for the keys of the
    file, the paths of the user's files.
    """
    settings, inputs = recipe.get("settings") or {}, recipe.get("inputs") or {}
    imatrix = Path(inputs["imatrix"]) if inputs.get("imatrix") else None
    facts: dict[str, Any] = {}
    if imatrix is not None:
        same_file(imatrix, settings["imatrix"])
        facts = {"importance": {**settings["imatrix"], **read_imatrix(imatrix).facts()}}
    elif inputs.get("calibration"):
        text = Path(inputs["calibration"])
        same_file(text, settings["calibration"])
        imatrix = calibrated(
            report,
            Path(checkpoint),
            text,
            settings["calibration"],
            inputs["checkpoint_key"],
            workload.get("context"),
        )
        facts = {
            "importance": {
                **settings["calibration"],
                **read_imatrix(imatrix).facts(),
                "collected_here": True,
            }
        }
    facts |= convert(
        Path(checkpoint),
        Path(out) / MODEL_FILE,
        recipe["weights"],
        overrides=settings.get("tensor_types"),
        threads=settings.get("threads"),
        imatrix=imatrix,
        max_file_bytes=workload.get("max_file_bytes"),
        origin=inputs.get("origin"),
        profile=Profile.from_dict(inputs.get("profile")),
        context=workload.get("context"),
        task=inputs.get("task") or "generate",
        report=report,
    )
    if inputs.get("modality") == "vision":
        kind = projector_type(recipe["weights"])
        facts["projector"] = convert_projector(
            Path(checkpoint),
            Path(out) / PROJECTOR,
            kind,
            report=report,
            threads=settings.get("threads"),
            origin=inputs.get("origin"),
        )
        facts["artifact_bytes"] += facts["projector"]["artifact_bytes"]
    return facts


def calibrated(
    report: Report,
    checkpoint: Path,
    text: Path,
    settings: Mapping[str, Any],
    checkpoint_key: str,
    context: int | None = None,
) -> Path:
    """The importance matrix of a checkpoint over a text, from the cache or collected now with the
    model in 8 bits."""
    # Late: it loads the engine.
    from targets.llama_cpp import calibration

    cache = BuildCache()
    inputs = {
        "checkpoint": checkpoint_key,
        "text": settings,
        "as": CALIBRATED_AS,
        "library": library.version(),
    }
    key = key_of(inputs)
    entry = whole(cache, "imatrix", key)
    if entry is None:
        with cache.work_folder() as work:
            report.note(f"preparing {CALIBRATED_AS} to collect importances with")
            model = work / "calibrated.gguf"
            convert(checkpoint, model, CALIBRATED_AS, report=report, context=context)
            chunks = calibration.collect(model, text, work / IMATRIX_FILE, report)
            model.unlink()
            entry = cache.keep("imatrix", key, work, {"chunks": chunks})
    else:
        report.note("importances were collected before")
    return entry.folder / IMATRIX_FILE


def same_file(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise PackError (bad input) when a file of the user's is no longer what the plan was made
    with."""
    if file_facts(path)["sha256"] != settings["sha256"]:
        raise bad_input(
            f"{path} has changed since the build was planned.", "Start the build again."
        )
