"""Packages for the campaign, without an engine: small, of every part that a reader looks at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from packager.package import manifest, schema

_WEIGHTS = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(8000))
OLD = {
    "model/model.gguf": b"GGUF" + _WEIGHTS,
    "README.md": b"# a package\n",
    "LICENSE": b"free\n",
    "chat_template.jinja": b"{{ messages }}",
}
NEW = {
    **OLD,
    "model/model.gguf": OLD["model/model.gguf"][:100_000] + b"new" * 999 + _WEIGHTS[50_000:],
    "README.md": b"# a newer package\n",
}
MORE = {
    "chat_template.json": b'{"chat_template": "{{ messages }}"}',
    "generation_config.json": b'{"eos_token_id": [300, 301], "temperature": 0.6, "top_k": 20, '
    b'"top_p": 0.95, "do_sample": true}',
}
"""Files of a checkpoint that not every one has."""

AGREED: dict[str, Any] = {"allow_dummy": True, "accepted": ("unstated",)}


def facts(files: dict[str, bytes]) -> dict[str, Any]:
    """The manifest of a package of these files."""
    return {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "runtime": {"name": "llama.cpp", "version": "1"},
        "recipe": {"id": "gguf:Q4_K_M", "kv": "f16"},
        "variant": {"repo_id": "Qwen/Qwen3-0.6B"},
        "source": {"kind": "dummy"},
        "workload": {"context": 128},
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        ],
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """A package of these files in a new folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest.write(folder, facts(files))
    return folder


def rich_manifest() -> bytes:
    """A manifest with a value for every field that anything reads."""
    every = _value(schema.SHAPE)
    return json.dumps(manifest.seal({**every, **facts(OLD), "created": "2026-01-01"})).encode()


def _value(kind: schema.Kind) -> Any:
    if isinstance(kind, dict):
        return {key: _value(part) for key, part in kind.items()}
    if isinstance(kind, list):
        return [_value(part) for part in kind]
    values = {schema.text: "text", schema.number: 1.5, schema.tokens: 128, schema.flag: True}
    return values[kind]


def finish(work: Generator[Any, None, Any]) -> Any:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
