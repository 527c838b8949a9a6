"""A job for the tests of templates and ends of turn: many checkpoints through one engine, in one
process."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint
from packager.errors import PackError
from packager.process import resolve
from packager.quality import parity
from packager.runtime import Report
from targets import registry
from tests.support.parity_jobs import SETTINGS


def build_and_check(
    report: Report, *, engine: str, weights: str, checkpoints: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Name of the checkpoint -> what parity says of its artifact, or `refused`, the sentence that
    stopped it. `checkpoints` maps each folder to the profile that it is built with."""
    runtime = registry.runtime(engine)
    found: dict[str, Any] = {}
    for checkpoint, profile in checkpoints.items():
        with tempfile.TemporaryDirectory() as folder:
            recipe = asdict(runtime.recipe(weights)) | {"inputs": {"profile": profile}}
            artifact = str(Path(folder) / "artifact")
            try:
                resolve(runtime.build_job)(
                    report,
                    checkpoint=checkpoint,
                    recipe=recipe,
                    workload={"context": 512},
                    out=artifact,
                )
                _own_temporary_files()
                model = resolve(runtime.session)(artifact, SETTINGS[engine])
                log = Path(folder) / "log"
                wished = Profile.from_dict(profile)
                opened = Checkpoint.open(Path(checkpoint))
                result = parity.check(model, opened, log, stops=True, profile=wished).as_dict()
                found[Path(checkpoint).name] = {**result, "template": model.chat_template()}
                model.close()
            except PackError as error:
                found[Path(checkpoint).name] = {"refused": error.message, "hint": error.hint}
                _own_temporary_files()
    return found


def _own_temporary_files() -> None:
    """A build moves the temporary files of its process into its own folder, which is gone then."""
    os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None
