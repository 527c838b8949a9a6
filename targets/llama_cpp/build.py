"""Checkpoint -> quantized GGUF. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.chat.profile import Profile
from packager.digests import key_of
from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, at, at_or_none, object_at, object_or_empty
from packager.pipeline.cache import BuildCache, whole
from packager.plan.additions import file_facts
from packager.recipe import REPACK
from packager.runtime import Report
from targets.gguf import library
from targets.gguf.convert import convert
from targets.gguf.imatrix import read_imatrix
from targets.gguf.presets import PROJECTOR, projector_type
from targets.gguf.projector import convert_audio, convert_projector
from targets.llama_cpp.importance import CALIBRATED_AS

MODEL_FILE = "model.gguf"
IMATRIX_FILE = "imatrix.gguf"


def build(
    report: Report, *, checkpoint: str, recipe: JsonObject, workload: JsonObject, out: str
) -> JsonObject:
    """The runtime's build job: writes `model.gguf`, or files below the workload's limit, into `out`
    and returns what the manifest keeps; with pictures or sound also `mmproj.gguf`.

    `recipe` holds beside its own fields the `inputs` of the build: `origin` for the keys of the
    file, the paths of the user's files.
    """
    settings, inputs = object_or_empty(recipe, "settings"), object_or_empty(recipe, "inputs")
    given, text_file = (at_or_none(inputs, key, str) for key in ("imatrix", "calibration"))
    context = at_or_none(workload, "context", int)
    imatrix = Path(given) if given else None
    facts: JsonDict = {}
    if imatrix is not None:
        recorded = object_at(settings, "imatrix")
        same_file(imatrix, recorded)
        facts = {"importance": {**recorded, **read_imatrix(imatrix).facts()}}
    elif text_file:
        text, recorded = Path(text_file), object_at(settings, "calibration")
        same_file(text, recorded)
        imatrix = calibrated(
            report,
            Path(checkpoint),
            text,
            recorded,
            at(inputs, "checkpoint_key", str),
            context,
        )
        facts = {
            "importance": {
                **recorded,
                **read_imatrix(imatrix).facts(),
                "collected_here": True,
            }
        }
    types = object_or_empty(settings, "tensor_types")
    made = convert(
        Path(checkpoint),
        Path(out) / MODEL_FILE,
        at(recipe, "weights", str),
        overrides={pattern: at(types, pattern, str) for pattern in types} or None,
        threads=at_or_none(settings, "threads", int),
        imatrix=imatrix,
        max_file_bytes=at_or_none(workload, "max_file_bytes", int),
        origin=object_or_empty(inputs, "origin") or None,
        profile=Profile.from_dict(object_or_empty(inputs, "profile")),
        context=context,
        task=at_or_none(inputs, "task", str) or "generate",
        repack=settings.get(REPACK) is True,
        heads=bool(inputs.get("heads")),
        report=report,
    )
    converters = {"vision": convert_projector, "audio": convert_audio}
    converter = converters.get(at_or_none(inputs, "modality", str) or "text")
    if converter is None:
        return {**facts, **made}
    tower = converter(
        Path(checkpoint),
        Path(out) / PROJECTOR,
        projector_type(at(recipe, "weights", str)),
        report=report,
        threads=at_or_none(settings, "threads", int),
        origin=object_or_empty(inputs, "origin"),
    )
    whole_bytes = at(made, "artifact_bytes", int) + at(tower, "artifact_bytes", int)
    return {**facts, **made, "projector": tower, "artifact_bytes": whole_bytes}


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
