"""Packages that take pictures: how they are known, and what their sessions are opened with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import usage
from packager.package.package import MODEL
from packager.parts import refuse_half
from packager.runtime import Runtime, Sees

if TYPE_CHECKING:
    from packager.package.manifest import Manifest


def sees(runtime: Runtime, package: Manifest) -> bool:
    """Whether a package holds an image encoder beside its decoder."""
    if package.contents.modality == "audio" or not isinstance(runtime, Sees):
        return False
    return any(entry.path == f"{MODEL}/{runtime.projector}" for entry in package.files)


def has_encoder(runtime: Runtime, artifact: Path) -> bool:
    """Whether an artifact's folder holds an image encoder."""
    return isinstance(runtime, Sees) and (artifact / runtime.projector).is_file()


def session_of(runtime: Runtime, package: Manifest) -> str:
    """The dotted name of the session that answers about pictures. Raises PackError (usage) for a
    package of text alone."""
    if package.contents.vision is not None:
        refuse_half(runtime, Sees)
    if not sees(runtime, package):
        raise usage(
            f"The package {package.name} takes no pictures: it was built for text alone.",
            "Build one with `--use-case vision`, or leave --image out.",
        )
    assert isinstance(runtime, Sees)
    return runtime.vision_session
