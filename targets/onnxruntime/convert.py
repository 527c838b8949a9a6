"""The conversion, a job for a child process: checkpoint to an ONNX graph with quantized weights,
ready for onnxruntime-genai."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint, codes, retrieval_file
from packager.checkpoint.folder import is_weights
from packager.checkpoint.numbers import check_all_finite
from packager.checkpoint.rewrite import for_every_engine, under_official_names
from packager.cores import stay_within_quota
from packager.errors import PackError, bad_input, from_foreign
from packager.files import folder_that_appears_whole, tree_bytes, write_json
from packager.json_values import JsonObject, at, at_or_none, object_at, object_or_empty
from packager.python import without
from packager.runtime import Report
from targets.onnxruntime import adapter, finish, model_builder, obstacles, pooled, positions
from targets.onnxruntime.quantization import Settings, parse


def convert(
    report: Report, *, checkpoint: str, recipe: JsonObject, workload: JsonObject, out: str
) -> JsonObject:
    """Build the artifact into the folder `out`, which appears whole or not at all.

    Returns the files' total size, the settings and the execution provider that it is made for.
    """
    settings = parse(object_at(recipe, "settings"), at(recipe, "weights", str))
    source = Checkpoint.open(Path(checkpoint))
    context = at(workload, "context", int)
    inputs = object_or_empty(recipe, "inputs")
    task = at_or_none(inputs, "task", str) or "generate"
    head = None if task == "generate" else retrieval_file.of(source, task)
    shape = source.shape.for_task(task)
    obstacle = obstacles.of_shape(shape) or obstacles.of_recipe(shape, settings)
    if obstacle is not None:
        raise bad_input(obstacle, "Choose another recipe or runtime.")
    # Its libraries count processors and know no quota.
    stay_within_quota()
    positions.refuse_positions(source, context)
    taken = _taken_over(source, settings)
    check_all_finite(source)
    final = Path(out)
    if final.is_dir():
        final.rmdir()
    with _work_folder(final) as work, folder_that_appears_whole(final) as built:
        with _speaking_plainly():
            plain = _tied(report, source, work / "qwen2") if head else None
            plain = plain or for_every_engine(report, source, work / "qwen2")
            folder = plain.folder if plain is not source else staged(source, work / "checkpoint")
            config = positions.plainly_placed(plain.config, plain.positions)
            if head is not None:
                config = {**config, "tie_word_embeddings": True}
            write_json(folder / "config.json", config)
            shape = plain.shape.for_task(task)
            with without(*model_builder.UNNEEDED):
                model_builder.run(report, folder, shape, settings, built, work, taken)
            positions.put_positions(built, plain.positions, context)
            if settings.adapter_inputs:
                adapter.add_inputs(built / "model.onnx")
            if head is not None:
                pooled.cut(built, retrieval_file.answers(source) if task == "rerank" else None)
        report.note("writing the configuration and the tokenizer")
        if head is None:
            profile = Profile.from_dict(object_or_empty(inputs, "profile"))
            finish.finish(built, plain, context, profile)
        else:
            finish.for_retrieval(built, plain, head)
    return {
        "artifact_bytes": tree_bytes(final),
        "provider": settings.provider,
        "settings": settings.as_dict(),
        **({"repacked": len(taken)} if taken else {}),
    }


def _taken_over(source: Checkpoint, settings: Settings) -> dict[str, codes.Part] | None:
    """What stays in its groups of 4 bits; scales are kept in the precision of the recipe."""
    if not settings.repack:
        return None
    narrow = settings.precision == "fp16"
    return codes.taken_over(source, "ONNX Runtime", codes.beyond_16_bits if narrow else None)


def _tied(report: Report, source: Checkpoint, folder: Path) -> Checkpoint | None:
    """A checkpoint with an output matrix of its own rewritten without it: the model builder would
    look tokens up in that matrix. None for one that has none."""
    if source.shape.tied:
        return None
    report.note("rewriting the checkpoint without its output matrix")
    tensors = {name: info for name, info in source.tensors.items() if name != "lm_head.weight"}
    config = {**source.config, "tie_word_embeddings": True}
    return under_official_names(report, replace(source, tensors=tensors, config=config), folder)


def staged(source: Checkpoint, folder: Path) -> Path:
    """A folder with the checkpoint's own files and nothing else, none of them a symbolic link as in
    the hub's cache.

    Whatever else lies in the user's folder (adapters, Python, pickled weights) is out of the
    engine's sight.
    """
    folder.mkdir()
    for name, path in source.files.items():
        real = path.resolve()
        (folder / name).parent.mkdir(exist_ok=True)
        try:
            if not is_weights(name):
                raise OSError
            os.link(real, folder / name)
        except OSError:
            # Another disk, a file system without links, or a file small enough to be copied.
            shutil.copyfile(real, folder / name)
    return folder


@contextlib.contextmanager
def _work_folder(final: Path) -> Iterator[Path]:
    """A folder beside `final` for everything temporary, the engines' own temporary files too; gone
    afterwards."""
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.work.", dir=final.parent))
    temporary = work / "tmp"
    temporary.mkdir()
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    try:
        yield work
    finally:
        tempfile.tempdir = before[1]
        if before[0] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[0]
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _speaking_plainly() -> Iterator[None]:
    """An engine's exception becomes one sentence; its traceback stays in the log."""
    try:
        yield
    except PackError:
        raise
    except Exception as error:
        known = from_foreign(error)
        if known is not None:
            raise known from error
        import traceback

        traceback.print_exc()
        lines = str(error).strip().splitlines()
        raise bad_input(
            "ONNX Runtime could not convert the checkpoint: "
            f"{lines[-1][:300] if lines else type(error).__name__}."
        ) from error
