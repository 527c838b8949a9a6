"""What the audio encoder of an artifact has lost against the unquantized one: cosines of audio
embeddings, less their mean, over made sounds of whole seconds.

Random weights say as much here as trained ones: every arithmetic step of the encoder takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.quality import picture_limits
from packager.quality.embeddings import Cosines, rows, weights_of
from packager.records import QualityVerdict
from packager.records.quality import SoundQuality
from packager.runtime import Report
from packager.shape.audio import PREFIX, RATE
from packager.sounds.made import made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.checkpoint import Checkpoint
    from packager.hearing import AudioSession
    from packager.reference.audio import AudioEncoder

VERSION = 1
"""Raised when the same artifact would give other figures."""

SECONDS = (2, 9)
"""Lengths of the sounds: one within a window of attention, and one that begins a second window."""

LIMITS = Path(__file__).with_name("sound_limits.toml")

_CONTEXT = 64
"""Tokens of the session's context: nothing is decoded."""


def sounds() -> Iterator[NDArray[np.float32]]:
    """The sounds that are compared."""
    for number, seconds in enumerate(SECONDS):
        yield made(seconds, number)


def lost(report: Report, model: AudioSession, encoder: AudioEncoder) -> SoundQuality:
    """The figures of a loaded artifact."""
    from packager.reference.audio import features

    cosines = Cosines()
    for number, samples in enumerate(sounds(), 1):
        report.note(f"a sound of {len(samples) / RATE:.0f} s against the unquantized audio encoder")
        theirs = encoder.embed(features(samples))
        cosines.add(model.embed_audio(samples), theirs, theirs.mean(0))
        report.progress(number, len(SECONDS), "sounds")
    tokens, broken, mean, least = cosines.figures()
    return SoundQuality(
        sounds=len(SECONDS), tokens=tokens, broken=broken, cosine_mean=mean, cosine_min=least
    )


def compare(
    report: Report, session: str, artifact: str, settings: Mapping[str, Any], source: Checkpoint
) -> dict[str, Any]:
    """`sounds`, the figures of an artifact beside its checkpoint, as `judged` takes them."""
    # Late: numpy, for the child that computes.
    from packager.process import resolve
    from packager.reference.audio import AudioEncoder

    hearing = source.audio()
    encoder = AudioEncoder(hearing.tower, weights_of(hearing.tensors, PREFIX))
    model: AudioSession = resolve(session)(artifact, {**settings, "context": _CONTEXT})
    try:
        return {"sounds": lost(report, model, encoder).to_json()}
    finally:
        model.close()


def judged(facts: Mapping[str, Any]) -> tuple[SoundQuality | None, tuple[QualityVerdict, ...]]:
    """The figures among a comparison's `facts` (`sounds`, and `tower_grade`, the class of the
    encoder's weights), and one row per limit, which a vector that is not a number misses; none
    where no sound was compared."""
    if not facts.get("sounds"):
        return None, ()
    found = SoundQuality.from_json(facts["sounds"])
    limits = picture_limits.limits(str(facts.get("tower_grade")), LIMITS)
    if limits is None:
        return found, ()
    return found, rows(found, limits, "audio")
