"""Adapters that are added to the model: folders that `qwen-pack build --adapter` wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from packager.errors import bad_input, usage

from .settings import Settings

_ABLE = ("openvino", "onnxruntime")
_LONGEST = 16 << 20
"""Bytes of a manifest at most."""


def files(folders: list[str], known: Settings) -> tuple[Path, ...]:
    """The files that the engine loads. Raises PackError for what was not built for this package
    (usage), or has changed since (bad input)."""
    if folders and (known.runtime not in _ABLE or known.task != "generate"):
        raise usage(f"{known.name} takes no adapters.", "Leave --adapter out.")
    return tuple(_file(Path(folder), known) for folder in folders)


def chosen(known: Settings) -> dict[str, Path]:
    """The files of the adapters of which a request names one. Raises PackError as `files`."""
    return dict(
        zip(
            known.choices,
            files([str(folder) for folder in known.choices.values()], known),
            strict=True,
        )
    )


def _file(folder: Path, known: Settings) -> Path:
    try:
        with (folder / "manifest.json").open("rb") as file:
            data: Any = json.loads(file.read(_LONGEST))
        adapter = data["adapter"]
        base, name = adapter["base"]["content_sha256"], adapter["file"]
        (digest,) = (row["sha256"] for row in data["files"] if row["path"] == name)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise bad_input(
            f"{folder} is not an adapter package.", "`qwen-pack build --adapter` makes one."
        ) from None
    if base != known.content_sha256:
        raise usage(
            f"The adapter in {folder} belongs to another package than {known.name}.",
            "Build it again with this package as --base.",
        )
    # The name in a manifest may be a path to anywhere.
    path = folder / "model" / str(name).rpartition("/")[2]
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        same = False
    if not same:
        raise bad_input(f"{path} is not what its manifest says.", "Copy the adapter here again.")
    return path
