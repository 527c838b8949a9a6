"""A package of the small trained model, with a real GGUF of it and a manifest written by hand."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint
from packager.files import regular_files, sha256
from packager.package import manifest
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import build

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3"


def write_trained(folder: Path, weights: str = "Q8_0", **changes: Any) -> Path:
    """The model in that quantization, its template, and the manifest of both."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.gguf").write_bytes(_converted(weights))
    return describe(folder, f"gguf:{weights}", "llama.cpp", **changes)


@cache
def _converted(weights: str) -> bytes:
    """The model's GGUF, made once in a process: the same bytes each time, and a megabyte."""
    with tempfile.TemporaryDirectory() as folder:
        return build(TRAINED, Path(folder, "model.gguf"), weights).read_bytes()


def describe(folder: Path, recipe_id: str, runtime: str, **changes: Any) -> Path:
    """The template and the manifest of an artifact of it that lies in `folder`/model."""
    (folder / "chat_template.jinja").write_text(
        str(Checkpoint.open(TRAINED).chat_template), "utf-8"
    )
    rows = [
        {
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in regular_files(folder)
    ]
    data = {
        "schema": manifest.SCHEMA,
        "name": f"tiny-{recipe_id.partition(':')[2]}",
        "files": rows,
        "artifact_bytes": sum(path.stat().st_size for path in regular_files(folder / "model")),
        "runtime": {"name": runtime, "version": "1"},
        "recipe": {"id": recipe_id, "kv": "f16"},
        "variant": {"repo_id": "local/tiny-qwen3"},
        "source": {"kind": "local"},
        "workload": {"context": 512},
    }
    manifest.write(folder, {**data, **changes})
    return folder
