"""A finished package: where it lies, what it says, whether it can be used again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError
from packager.package import manifest, verify
from packager.package.manifest import Manifest
from packager.records import Contents, Verdict

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Package:
    """A finished package: where it lies and what it says of itself."""

    path: Path
    manifest: Manifest

    @property
    def contents(self) -> Contents:
        """What its manifest says, typed."""
        return self.manifest.contents

    @property
    def failed(self) -> list[Verdict]:
        """Verdicts of enforced budgets that the measurement missed."""
        return [verdict for verdict in self.contents.verdicts if verdict.failed]


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
        if found.contents.build_key == build_key and untouched and not verify.verify_names(path):
            return Package(path, found)
    return None
