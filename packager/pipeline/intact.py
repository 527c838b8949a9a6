"""Packages that are opened: whole, unchanged, and known by their model's bytes."""

from __future__ import annotations

from pathlib import Path

from packager.digests import key_of
from packager.errors import bad_input
from packager.inspection import refuse_unsafe
from packager.package import manifest
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.package.verify import verify
from packager.scratch import remove_abandoned


def artifact_key(known: Manifest) -> str:
    """What names the package's model files on this machine: where an engine died with them, it is
    not asked again."""
    return key_of(
        [[entry.path, entry.sha256] for entry in known.files if entry.path.startswith(f"{MODEL}/")]
    )


def intact(package: Path) -> Manifest:
    """The manifest of a package whose files are what it says. Raises PackError (bad input)."""
    # A measurement that was killed while it was added left its half beside the manifest.
    remove_abandoned(package)
    findings = [finding for finding in verify(package) if not finding.harmless]
    if findings:
        first = findings[0]
        raise bad_input(
            f"{package} is not what its manifest says: {first.path} {first.message}.",
            "`qwen-pack verify` lists every difference.",
        )
    package_manifest = manifest.read(package)
    refuse_unsafe(package, package_manifest)
    return package_manifest
