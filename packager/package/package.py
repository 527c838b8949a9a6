"""A finished package: where it lies, what it says, whether it can be used again."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from packager.errors import PackError
from packager.package import manifest, verify
from packager.package.manifest import Manifest
from packager.records import Contents, Verdict

MODEL = "model"
DRAFT = "draft"


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


def reuse(path: Path, build_key: str) -> Generator[tuple[int, int], None, Package | str | None]:
    """The package at `path` when it is the one that this build would write again, every byte of it
    as its manifest says.

    Yields (bytes done, bytes in all). Returns what is wrong with it where it is damaged, None where
    there is none of this build.
    """
    try:
        known = manifest.read(path)
        if known.contents.build_key != build_key:
            return None
        findings = yield from verify.verifying(path)
    except (PackError, OSError):
        return None
    return f"{findings[0].path} {findings[0].message}" if findings else Package(path, known)
