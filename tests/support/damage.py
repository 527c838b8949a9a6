"""Ways to damage a checkpoint, and the refusal that has to follow."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from tests.support.make_checkpoint import write_tiny

WEIGHTS = "model.safetensors"


def refused(folder: Path, *words: str) -> PackError:
    with pytest.raises(PackError) as caught:
        Checkpoint.open(folder)
    assert caught.value.exit_code == ExitCode.INPUT
    for word in words:
        assert word in str(caught.value)
    return caught.value


def edit_json(path: Path, **changes: Any) -> None:
    """Change top-level keys; a value of None removes one."""
    value = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the header of a safetensors file, its data untouched."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def safetensors(entries: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def hub_snapshot(root: Path) -> Path:
    """A tiny checkpoint in the layout of the hub's cache."""
    repo = root / "hub" / "models--Qwen--Tiny"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    blobs = write_tiny(repo / "blobs")
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def add_tensor(path: Path, name: str, shape: list[int]) -> None:
    """Append a BF16 tensor of zeros."""
    size = math.prod(shape) * 2

    def change(header: dict[str, Any]) -> None:
        end = max(
            entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"
        )
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}

    edit_header(path, change)
    with path.open("ab") as stream:
        stream.write(bytes(size))
