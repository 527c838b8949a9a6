"""The conversion, a job for a child process: checkpoint to OpenVINO IR with compressed weights,
tokenizer and detokenizer."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from packager.chat.profile import Profile
from packager.checkpoint.folder import checkpoint_files, read_json
from packager.cores import stay_within_quota
from packager.errors import bad_input, from_foreign, no_room
from packager.files import free_bytes, tree_bytes
from packager.json_values import (
    JsonDict,
    JsonObject,
    at_or_none,
    object_at,
    object_or_empty,
)
from packager.runtime import Report
from packager.shape import FIRST_GENERATION
from targets.openvino import light, light_audio, light_vision, optimum, papers
from targets.openvino.data import LIGHT

_TICK_S = 0.2


def convert(
    report: Report, *, checkpoint: str, recipe: JsonObject, workload: JsonObject, out: str
) -> JsonObject:
    """Build the artifact into the folder `out`, which appears whole or not at all.

    Returns the files' total size, the tools' versions and the compression settings as passed; with
    pictures or sound also what is known of the tower (`projector`).
    """
    # A cancelled build ends this process by SIGTERM: leave through `finally`, so that nothing
    # half-written stays.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    # Its libraries count processors and know no quota.
    stay_within_quota()
    compression = object_or_empty(object_at(recipe, "settings"), "compression") or None
    inputs = object_or_empty(recipe, "inputs")
    task = at_or_none(inputs, "task", str) or "generate"
    final, taken = Path(out), 0
    tower: JsonDict = {}
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        _stay_at_home(work)
        built = work / "artifact"
        with _telling_bytes(report, work), _speaking_plainly(work, tree_bytes(Path(checkpoint))):
            context = at_or_none(workload, "context", int)
            if at_or_none(inputs, "modality", str) == "vision":
                most = at_or_none(inputs, "image_max_tokens", int)
                facts = light_vision.export(
                    report, Path(checkpoint), compression, built, context, most
                )
                tower = {"projector": facts}
            elif at_or_none(inputs, "modality", str) == "audio":
                facts = light_audio.export(report, Path(checkpoint), compression, built, context)
                tower = {"projector": facts}
            elif task != "generate" or object_at(recipe, "settings").get("repack"):
                repack = task == "generate"
                taken = light.export(
                    report, Path(checkpoint), compression, built, context, task, repack=repack
                )
            else:
                way = _way(Path(checkpoint))
                way.export(report, Path(checkpoint), compression, built, context)
            if task == "generate":
                profile = Profile.from_dict(object_or_empty(inputs, "profile"))
                papers.write(Path(checkpoint), profile, built)
        if final.is_dir():
            final.rmdir()
        built.replace(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "artifact_bytes": tree_bytes(final),
        "compression": compression,
        **({"repacked": taken} if taken else {}),
        **tower,
    }


def _way(checkpoint: Path) -> ModuleType:
    """Every model type has one way, so that a recipe means one artifact."""
    files = checkpoint_files(checkpoint)
    dense = "config.json" not in files or read_json(files["config.json"]).get("model_type") in (
        *LIGHT,
        FIRST_GENERATION,
    )
    return light if dense else optimum


def _stay_at_home(work: Path) -> None:
    """Nothing goes to the system's temporary folder, to the hub, or to Intel's usage statistics.

    Must run before the engines are imported: they read these variables once.
    """
    temporary = work / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    # openvino_telemetry sends without asking; the one switch that changes no file in the home
    # folder is CI.
    os.environ.update(CI="true", NNCF_CI="1")


@contextlib.contextmanager
def _telling_bytes(report: Report, work: Path) -> Iterator[None]:
    """Report the bytes written so far while the block runs: the engines tell nothing themselves."""
    done = threading.Event()

    def watch() -> None:
        most = 0
        while not done.wait(_TICK_S):
            most = max(most, tree_bytes(work))
            report.progress(most, None)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def _speaking_plainly(work: Path, needed: int) -> Iterator[None]:
    """An engine's exception becomes one sentence; its traceback goes to the log.

    `needed` is the size of the largest file it writes, which it removes again when that fails.
    """
    try:
        yield
    except Exception as error:
        known = from_foreign(error)
        if known is not None:
            raise known from error
        traceback.print_exc()
        # The engines write through C++ and Rust, whose errors have lost the reason:
        # "basic_ios::clear: iostream error".
        if free_bytes(work) < needed or "os error 28" in str(error):
            raise no_room(
                f"The disk that holds {work.parent} is full.",
                "Free some space, or choose another place with --out or QWEN_PACK_CACHE.",
            ) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        last = lines[-1].strip()[:300].rstrip(".") if lines else type(error).__name__
        raise bad_input(
            f"OpenVINO could not convert the checkpoint: {last}.",
            "Check the checkpoint; the log says more.",
        ) from error
