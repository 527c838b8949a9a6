"""A finished package: where it lies, what it says, whether it can be used again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.errors import PackError
from packager.package import manifest, verify
from packager.package.manifest import Manifest

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Package:
    """A finished package: where it lies and what it says of itself."""

    path: Path
    manifest: Manifest

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Verdicts of enforced budgets that the measurement missed."""
        return [
            row
            for row in self.manifest.data.get("verdicts") or []
            if row["enforced"] and row["passed"] is False
        ]


def reuse(path: Path, build_key: str) -> Package | None:
    """The package at `path` when it is the one this build would write again, every file untouched
    since."""
    with suppress(PackError, OSError):
        found = manifest.read(path)
        written = (path / manifest.NAME).stat().st_mtime_ns
        untouched = all(
            (path / entry.path).stat().st_size == entry.size
            and (path / entry.path).stat().st_mtime_ns <= written
            for entry in found.files
        )
        if found.data.get("build_key") == build_key and untouched and not verify.verify_names(path):
            return Package(path, found)
    return None
