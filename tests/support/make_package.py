"""A small package written by hand, for the tests of what reads packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.files import sha256
from packager.package import manifest

FILES = {
    "model/model.bin": b"weights" * 100,
    "model/model.xml": b"<net/>",
    "README.md": b"# a package\n",
    "chat_template.jinja": b"{{ messages }}",
}


def body(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that holds FILES."""
    rows = [
        {"path": path, "size": len(data), "sha256": sha256(folder / path)}
        for path, data in FILES.items()
    ]
    return {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "files": rows,
        "runtime": {"name": "openvino", "version": "1"},
        "recipe": {"id": "openvino:int8", "kv": "u8"},
        "variant": {"repo_id": "Qwen/Qwen3-0.6B"},
        "source": {"kind": "dummy"},
        "workload": {"context": 128},
    }


def write_package(folder: Path) -> Path:
    """Write FILES and their manifest into a new folder."""
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest.write(folder, body(folder))
    return folder
