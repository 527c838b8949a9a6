"""Packages for the campaign, without an engine: small, of every part that a reader looks at."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

from msgspec import inspect

from packager.package import manifest
from packager.records import Contents

_WEIGHTS = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(8000))
_HEADER = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
OLD = {
    "model/model.gguf": _HEADER + _WEIGHTS,
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
    every = _value(inspect.type_info(Contents))
    return json.dumps(manifest.seal({**every, **facts(OLD), "created": "2026-01-01"})).encode()


def _value(kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: _value(field.type) for field in kind.fields}
    if isinstance(kind, inspect.UnionType):
        return next(_value(one) for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):
        return _value(kind.type)
    if isinstance(kind, inspect.StrType) and kind.pattern is not None:
        return "1.0"
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return [_value(kind.item_type)]
    if isinstance(kind, inspect.DictType):
        return {"text": _value(kind.value_type)}
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    values = {inspect.IntType: 128, inspect.FloatType: 1.5, inspect.BoolType: True}
    return values.get(type(kind), "text")


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
