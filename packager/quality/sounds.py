"""What the audio encoder of an artifact has lost against the unquantized one: cosines of audio
embeddings, less their mean, over made sounds of whole seconds.

Random weights say as much here as trained ones: every arithmetic step of the encoder takes part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.quality import picture_limits
from packager.quality.embeddings import Cosines, rows, weights_of
from packager.records import QualityVerdict
from packager.records.quality import ANSWER_TOKENS, SoundQuality
from packager.runtime import Report
from packager.shape.audio import HOP, PREFIX, RATE
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
_WHOLE_CONTEXT = 1024
"""The same where answers are compared, behind a window of 750 tokens."""

_QUESTION = (
    "<|im_start|>user\nAudio 1: <|audio_bos|>",
    "<|audio_eos|>\nWhat is heard in it?<|im_end|>\n<|im_start|>assistant\n",
)


def sounds() -> Iterator[NDArray[np.float32]]:
    """The sounds that are compared."""
    for number, seconds in enumerate(SECONDS):
        yield made(seconds, number)


def lost(report: Report, model: AudioSession, encoder: AudioEncoder) -> SoundQuality:
    """The figures of a loaded artifact. Where its engine makes other tokens of a sound than the
    published model, also how far answers move by that."""
    from packager.reference.audio import features
    from packager.reference.whisper import WindowEncoder

    cosines, moved = Cosines(), Moved()
    for number, samples in enumerate(sounds(), 1):
        report.note(f"a sound of {len(samples) / RATE:.0f} s against the unquantized audio encoder")
        mel = features(encoder.filled(samples))
        theirs, ours = encoder.embed(mel), model.embed_audio(samples)
        heard = len(theirs)
        if isinstance(encoder, WindowEncoder):
            published = encoder.published(mel, len(samples) // HOP)
            moved.add(model, ours, published)
            heard = len(published)
            # Less their mean hardly anything is left of tokens of silence, which are all alike.
            cosines.add(ours[heard:], theirs[heard:])
        theirs = theirs[:heard]
        cosines.add(ours[:heard], theirs, theirs.mean(0))
        report.progress(number, len(SECONDS), "sounds")
    tokens, broken, mean, least = cosines.figures()
    quality = SoundQuality(
        sounds=len(SECONDS), tokens=tokens, broken=broken, cosine_mean=mean, cosine_min=least
    )
    if not moved.published:
        return quality
    quality = quality.but(
        published_tokens=moved.published,
        answer_kl_mean=moved.divergence,
        answer_top1=moved.same_top,
    )
    report.note(quality.moved)
    return quality


class Moved:
    """Collects how far answers move where the engine makes other tokens of a sound than the
    published model: by the same decoder, fed with the vectors of either, along the answer to the
    published ones."""

    def __init__(self) -> None:
        self.published = 0
        self._divergences: list[float] = []
        self._same: list[bool] = []

    def add(
        self,
        model: AudioSession,
        ours: NDArray[np.float32],
        published: NDArray[np.float32],
    ) -> None:
        """One more sound: the vectors of the engine, and those of the published model."""
        import numpy as np

        right, answer = model.answer_logits(_QUESTION, published, ANSWER_TOKENS)
        moved, other = model.answer_logits(_QUESTION, ours, ANSWER_TOKENS, answer)
        self.published += len(published)
        wanted, got = _log_softmax(right), _log_softmax(moved)
        with np.errstate(all="ignore"):
            self._divergences += (np.exp(wanted) * (wanted - got)).sum(-1).tolist()
        self._same += [one == two for one, two in zip(answer, other, strict=True)]

    @property
    def divergence(self) -> float | None:
        """Nats per token, the mean; None where it is not a number."""
        mean = sum(self._divergences) / len(self._divergences)
        return mean if math.isfinite(mean) else None

    @property
    def same_top(self) -> float:
        """Share of the tokens whose likeliest one is the same."""
        return sum(self._same) / len(self._same)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    wide = np.asarray(logits, np.float64)
    wide -= wide.max(-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))


# Any: figures that go to the manifest, whose type checks them.
def compare(
    report: Report, session: str, artifact: str, settings: Mapping[str, Any], source: Checkpoint
) -> dict[str, Any]:
    """`sounds`, the figures of an artifact beside its checkpoint, as `judged` takes them."""
    # Late: numpy, for the child that computes.
    from packager.process import resolve
    from packager.reference.whisper import encoder_of

    hearing = source.audio()
    encoder = encoder_of(hearing.tower, weights_of(hearing.tensors, PREFIX))
    context = _CONTEXT if hearing.tower.window is None else _WHOLE_CONTEXT
    model: AudioSession = resolve(session)(artifact, {**settings, "context": context})
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
    quality = SoundQuality.from_json(facts["sounds"])
    limits = picture_limits.limits(str(facts.get("tower_grade")), LIMITS)
    if limits is None:
        return quality, ()
    return quality, rows(quality, limits, "audio")
