"""Two versions of a small package, and the patch between them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.shipping.delta import Made, write_patch
from tests.attack.packages import facts
from tests.support.shipping_packages import finish

MODEL = random.Random(1).randbytes(600_000)
OLD = {"model/model.bin": MODEL, "README.md": b"# a package\n", "LICENSE": b"free"}
NEW = {
    "model/model.bin": MODEL[:9_000] + b"a longer template" * 9 + MODEL[9_100:],
    "README.md": b"# another\n",
    "LICENSE": b"free",
}


def write(folder: Path, files: dict[str, bytes], **more: Any) -> Path:
    """A package of those files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    folder.mkdir(exist_ok=True)
    (folder / manifest.NAME).write_bytes(described(files, **more))
    return folder


def described(files: dict[str, bytes], **more: Any) -> bytes:
    """The manifest of a package of those files."""
    return json.dumps(manifest.seal({**facts(files), **more})).encode()


def delta(old: Path, new: Path, out: Path) -> Made:
    made: Made = finish(write_patch(old, new, out, allow_dummy=True, accepted=("unstated",)))
    return made


def nothing(work: Callable[[], Any], beside: Path, code: ExitCode, *words: str) -> None:
    """The work is refused with those words, and leaves nothing beside what was there."""
    before = sorted(beside.iterdir())
    with pytest.raises(PackError) as caught:
        finish(work())
    assert caught.value.exit_code == code, str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert sorted(beside.iterdir()) == before
