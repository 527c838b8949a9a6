"""What an artifact has lost against the unquantized model, and whether it speaks the checkpoint's
language."""

from __future__ import annotations

from typing import Literal

from packager.records.base import Count, Number, Record, Tokens


class QualityFigures(Record, frozen=True, kw_only=True):
    """How far a text is predicted from the unquantized model: nats per token, shares and
    perplexities; None where they are not numbers."""

    tokens: Tokens | None = None
    kl_mean: Number | None = None
    kl_p95: Number | None = None
    kl_p99: Number | None = None
    kl_max: Number | None = None
    kl_error: Number | None = None
    top1: Number | None = None
    perplexity: Number | None = None
    reference_perplexity: Number | None = None
    perplexity_ratio: Number | None = None
    broken: Count | None = None


class Part(QualityFigures, frozen=True, kw_only=True):
    """The figures of one kind of text."""

    name: str = ""


class AtDimension(Record, frozen=True, kw_only=True):
    """What vectors have lost of which so many numbers are kept."""

    dimension: Tokens
    cosine_mean: Number | None = None
    cosine_p5: Number | None = None
    cosine_min: Number | None = None
    order_kept: Number | None = None
    top1_kept: Number | None = None


class RetrievalQuality(Record, frozen=True, kw_only=True):
    """Vectors or scores of the corpus against the unquantized model's: cosines, differences of
    scores, shares of documents and queries whose order stays."""

    texts: Count = 0
    queries: Count = 0
    tokens: Count = 0
    broken: Count = 0
    cosine_mean: Number | None = None
    cosine_p5: Number | None = None
    cosine_min: Number | None = None
    score_mean: Number | None = None
    score_max: Number | None = None
    order_kept: Number | None = None
    top1_kept: Number | None = None
    dimensions: tuple[AtDimension, ...] = ()


class PictureQuality(Record, frozen=True, kw_only=True):
    """Image embeddings against the unquantized vision tower's: cosines over the tokens of the
    pictures, and how many of them are not numbers.

    `token_counts` is the share of `sizes` of pictures that get the published processor's number of
    tokens, `positions` that of image tokens at the published positions in all three axes, None
    where the engine does not say. `answer_*`: how far the `answer_tokens` of a text after a
    picture are expected otherwise, in nats, and the share whose likeliest token is the same;
    `answer_own` is the share of the engine's own answer that the compared logits expect as well;
    `answer_skipped` says why that was not compared.
    """

    pictures: Count = 0
    tokens: Count = 0
    broken: Count = 0
    cosine_mean: Number | None = None
    cosine_min: Number | None = None
    sizes: Count | None = None
    token_counts: Number | None = None
    positions: Number | None = None
    answer_tokens: Count | None = None
    answer_broken: Count | None = None
    answer_kl_mean: Number | None = None
    answer_kl_max: Number | None = None
    answer_top1: Number | None = None
    answer_own: Number | None = None
    answer_skipped: str | None = None


ANSWER_TOKENS = 8
"""Tokens of an answer to a sound that are compared."""


class SoundQuality(Record, frozen=True, kw_only=True):
    """Audio embeddings against the unquantized audio encoder's, likewise.

    Where the engine makes other tokens of a sound than the published model, `published_tokens` are
    those of the published one, `answer_kl_mean` is how far the first tokens of answers move by
    that, in nats, and `answer_top1` the share of them that stay the likeliest.
    """

    sounds: Count = 0
    tokens: Count = 0
    broken: Count = 0
    cosine_mean: Number | None = None
    cosine_min: Number | None = None
    published_tokens: Count | None = None
    answer_kl_mean: Number | None = None
    answer_top1: Number | None = None

    @property
    def moved(self) -> str:
        """How far answers move by the tokens that the engine makes of a sound, as a sentence; empty
        where it makes those of the published model."""
        if not self.published_tokens:
            return ""
        known = self.answer_kl_mean is not None
        divergence = f"{self.answer_kl_mean:.4f} nats" if known else "what is not a number"
        return (
            f"The engine makes {self.tokens} tokens of the {self.sounds} sounds that were "
            f"compared, and the published model {self.published_tokens}: the first "
            f"{ANSWER_TOKENS} tokens of the answers move by {divergence} each, and "
            f"{self.answer_top1 or 0:.0%} of them stay the likeliest."
        )


class CacheQuality(Record, frozen=True, kw_only=True):
    """The predictions at the end of a full context with the packaged cache type `kv`, beside those
    with a cache of 16 bits (`against`); `grade` is the class of limits that it is held to."""

    kv: str
    against: str
    grade: str
    context: Tokens
    tokens: Count = 0
    broken: Count = 0
    kl_mean: Number | None = None
    kl_p99: Number | None = None
    top1: Number | None = None


class QualityVerdict(Record, frozen=True, kw_only=True):
    """One limit of the recipe's class against what was measured."""

    rule: str
    limit: Number
    measured: Number | None = None
    at_least: bool = False
    passed: bool = False


class Parity(Record, frozen=True, kw_only=True):
    """Tokens, chat template and end of turn of the artifact against the checkpoint's; `findings`
    are the differences, as sentences.

    `same_template` says that the template is the checkpoint's letter by letter; `conversations`
    count what was rendered with it. `held_against` is there where no checkpoint was compared: the
    `file` itself or another `tokenizer`.
    """

    texts: Count = 0
    tokens: Count = 0
    control_tokens: Count = 0
    conversations: Count = 0
    same_template: bool = False
    ends: tuple[Count, ...] = ()
    stopped_after: Count | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    held_against: Literal["file", "tokenizer"] | None = None


class GateText(Record, frozen=True, kw_only=True):
    """The text that was read."""

    name: str = ""
    sha256: str = ""


class Grade(Record, frozen=True, kw_only=True):
    """What the class of the recipe may lose."""

    grade: str = ""
    kl_mean: Number | None = None
    top1: Number | None = None
    perplexity_ratio: Number | None = None
    cosine_mean: Number | None = None
    cosine_min: Number | None = None
    score_mean: Number | None = None
    order_kept: Number | None = None
    source: str = ""


class Quality(QualityFigures, frozen=True, kw_only=True):
    """The whole text. `skipped` says why there are no figures; `passed` is None where nothing was
    looked at."""

    skipped: str | None = None
    parts: tuple[Part, ...] = ()
    text: GateText | None = None
    limits: Grade | None = None
    verdicts: tuple[QualityVerdict, ...] = ()
    parity: Parity | None = None
    passed: bool | None = None
    loss_allowed: bool = False
    seconds: Number | None = None
    retrieval: RetrievalQuality | None = None
    pictures: PictureQuality | None = None
    sounds: SoundQuality | None = None
    cache: CacheQuality | None = None

    @property
    def differences(self) -> tuple[str, ...]:
        """In what the artifact differs from its checkpoint in tokens, template or end of turn."""
        return self.parity.findings if self.parity else ()
