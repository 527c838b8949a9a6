"""A package that takes pictures: both files of a tiny model, its template, and a manifest written
by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from packager.files import regular_files, sha256
from packager.package import manifest
from tests.support.tiny_vision import Tiny


def write_seeing(folder: Path, model: Tiny, **changes: Any) -> Path:
    """The package of a tiny model, for a context of 512 and pictures of 64 tokens."""
    shutil.copytree(model.artifact, folder / "model")
    shutil.copy(model.artifact.parent / "chat_template.jinja", folder)
    return written(folder, **changes)


def written(folder: Path, **changes: Any) -> Path:
    """The folder with a manifest of the files that are in it."""
    rows = [
        {
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "sha256": sha256(path),
            **({"role": "projector"} if path.name == "mmproj.gguf" else {}),
        }
        for path in regular_files(folder)
        if path.name != "manifest.json"
    ]
    data = {
        "schema": manifest.SCHEMA,
        "name": "tiny-seeing",
        "files": rows,
        "artifact_bytes": sum(row["size"] for row in rows if row["path"].startswith("model/")),
        "runtime": {"name": "llama.cpp", "version": "1"},
        "recipe": {"id": "gguf:BF16", "kv": "f16"},
        "variant": {"repo_id": "local/tiny-seeing"},
        "source": {"kind": "local"},
        "workload": {"context": 512, "prompt": 300, "max_image_tokens": 256},
        "predicted": {"forecast": {"ttft_ms": 100.0}},
    }
    manifest.write(folder, {**data, **changes})
    return folder
