"""Packages that take sound: how they are known, and what their sessions are opened with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.errors import usage
from packager.hearing import Hears
from packager.need.usecases import SOUND, use_case
from packager.runtime import Runtime

if TYPE_CHECKING:
    from packager.package.manifest import Manifest


def session_of(runtime: Runtime, package: Manifest) -> str:
    """The dotted name of the session that listens. Raises PackError (usage) for a package that
    takes no sound."""
    if package.contents.modality != "audio" or not isinstance(runtime, Hears):
        raise usage(
            f"The package {package.name} takes no sound.",
            "Build one with `--use-case audio`, or leave --audio out.",
        )
    return runtime.audio_session


def most_of(package: Manifest) -> int:
    """Seconds of sound that are taken at once, as the package was planned."""
    need = package.contents.workload
    usual = use_case(SOUND).max_audio_seconds
    assert usual is not None
    return (need.max_audio_seconds if need else None) or int(usual.value)
