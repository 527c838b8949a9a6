"""Checkpoint -> quantized GGUF. Runs in a child process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packager.additions import file_facts
from packager.cache import BuildCache, key_of
from packager.errors import bad_input
from packager.runtime import Report
from packager.units import human_bytes
from targets.llama_cpp import library, metadata, mix, tiktoken
from targets.llama_cpp.arch import architecture
from targets.llama_cpp.arch.base import Architecture
from targets.llama_cpp.imatrix import check_imatrix, read_imatrix
from targets.llama_cpp.importance import CALIBRATED_AS
from targets.llama_cpp.kernels import kernels, row_bytes
from targets.llama_cpp.presets import preset_of
from targets.llama_cpp.shards import shards
from targets.llama_cpp.source import Source, open_source
from targets.llama_cpp.tensors import place
from targets.llama_cpp.tokenizer import Vocabulary, read_vocabulary
from targets.llama_cpp.writer import write_gguf

MODEL_FILE = "model.gguf"
IMATRIX_FILE = "imatrix.gguf"


def build(report: Report, *, checkpoint: str, recipe: dict[str, Any], workload: dict[str, Any], out: str) -> dict[str, Any]:
    """The runtime's build job: writes `model.gguf`, or files below the workload's limit, into `out` and returns what the manifest keeps.

    `recipe` holds beside its own fields the `inputs` of the build: `origin` for the keys of the file, the paths of the user's files.
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
        imatrix = calibrated(report, Path(checkpoint), text, settings["calibration"], inputs["checkpoint_key"])
        facts = {"importance": {**settings["calibration"], **read_imatrix(imatrix).facts(), "collected_here": True}}
    return facts | convert(
        Path(checkpoint),
        Path(out) / MODEL_FILE,
        recipe["weights"],
        overrides=settings.get("tensor_types"),
        threads=settings.get("threads"),
        imatrix=imatrix,
        max_file_bytes=workload.get("max_file_bytes"),
        origin=inputs.get("origin"),
        report=report,
    )


def convert(
    checkpoint: Path,
    path: Path,
    preset_name: str,
    *,
    overrides: mix.Overrides | None = None,
    threads: int | None = None,
    report: Report | None = None,
    imatrix: Path | None = None,
    max_file_bytes: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the checkpoint as GGUF, in one file or as many as the limit takes, and return facts about it.

    `overrides` maps regular expressions over tensor names to ggml types, `imatrix` is a file of llama-imatrix, `origin` says where
    the weights come from (see metadata.collect). `threads` is all cores by default; the bytes are the same for any number.
    Raises PackError; nothing is left behind then.
    """
    preset = preset_of(preset_name)
    importance = read_imatrix(imatrix) if imatrix is not None else None
    listener: Report = report or _Silent()
    with _no_collection():
        source = open_source(checkpoint)
        converter = architecture(source.config)
        converter.check()
        tensors = converter.tensors({name: info.shape for name, info in source.tensors.items()})
        types = mix.tensor_types(
            metadata.network(converter, preset.file_type), tensors, preset, source.dtype, overrides, imatrix=imatrix is not None
        )
        vocabulary = _vocabulary(source, converter)
        keys = metadata.collect(source, converter, tensors, vocabulary, preset.file_type, origin)
        typed = list(place(tensors, types, row_bytes))
        check_imatrix(importance, typed)
        files = shards(path, keys, typed, max_file_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    used = threads or len(os.sched_getaffinity(0))
    write_gguf(files, source.tensors, kernels(), used, listener, importance.weights if importance else None)
    weights = sum(entry.nbytes for entry in typed)
    elements = sum(tensor.elements for tensor in tensors)
    size = sum(file.path.stat().st_size for file in files)
    several = f" in {len(files)} files" if len(files) > 1 else ""
    listener.note(f"{path.name}: {human_bytes(size)}{several}, {8 * weights / elements:.2f} bits per weight")
    counts: dict[str, int] = {}
    for entry in typed:
        counts[entry.type] = counts.get(entry.type, 0) + 1
    return {
        "architecture": converter.gguf_name,
        "preset": preset.name,
        "artifact_bytes": size,
        "tensors": len(typed),
        "types": counts,
        "bits_per_weight": round(8 * weights / elements, 4),
        "header_bytes": sum(len(file.head) for file in files),
        "pre_tokenizer": vocabulary.pre,
        "llama_cpp_python": library.version(),
    }


def calibrated(report: Report, checkpoint: Path, text: Path, settings: Mapping[str, Any], checkpoint_key: str) -> Path:
    """The importance matrix of a checkpoint over a text, from the cache or collected now with the model in 8 bits."""
    # Late: it loads the engine.
    from targets.llama_cpp import calibration

    cache = BuildCache()
    inputs = {"checkpoint": checkpoint_key, "text": settings, "as": CALIBRATED_AS, "library": library.version()}
    key = key_of(inputs)
    entry = cache.look_up("imatrix", key)
    if entry is None:
        with cache.work_folder() as work:
            report.note(f"preparing {CALIBRATED_AS} to collect importances with")
            model = work / "calibrated.gguf"
            convert(checkpoint, model, CALIBRATED_AS, report=report)
            chunks = calibration.collect(model, text, work / IMATRIX_FILE, report)
            model.unlink()
            entry = cache.keep("imatrix", key, work, {"chunks": chunks})
    else:
        report.note("importances were collected before")
    return entry.folder / IMATRIX_FILE


def same_file(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise PackError (bad input) when a file of the user's is no longer what the plan was made with."""
    if file_facts(path)["sha256"] != settings["sha256"]:
        raise bad_input(f"{path} has changed since the build was planned.", "Start the build again.")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Half a million small objects of a vocabulary are made and none is garbage: looking through them takes as long as making them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _vocabulary(source: Source, converter: Architecture) -> Vocabulary:
    ranks = source.folder / tiktoken.FILE
    if ranks.is_file() and not (source.folder / "tokenizer.json").is_file():
        return tiktoken.read_tiktoken(ranks, converter.number("vocab_size"))
    return read_vocabulary(source.folder, converter.config, source.tokenizer_config)


class _Silent:
    """A report that nobody reads."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """See packager.runtime.Report."""

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""

    def text(self, piece: str) -> None:
        """See packager.runtime.Report."""
