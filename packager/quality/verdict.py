"""What the figures of a comparison mean: one row per limit, and whether the build may go on."""

from __future__ import annotations

import math
from dataclasses import asdict

from packager.errors import ExitCode, PackError
from packager.json_values import JsonObject, at, objects_at
from packager.quality import cache_type, pictures, sounds
from packager.quality.thresholds import Limits
from packager.records import Parity, Quality, QualityVerdict
from packager.records.quality import (
    GateText,
    Grade,
    Part,
    QualityFigures,
    RetrievalQuality,
)

_CHANCE = 0.8
"""A perplexity of this share of the vocabulary: such a model has learnt nothing of this text.
Random weights give 1 and more."""

CHANCE = (
    "the unquantized model predicts the text hardly better than chance, so what is lost means "
    "nothing"
)

RULES = {
    "kl_mean": "mean divergence",
    "top1": "same top token",
    "perplexity_ratio": "perplexity ratio",
}
WORDS = RULES | {
    "cosine_mean": "mean cosine",
    "cosine_p5": "P5 of the cosine",
    "cosine_min": "least cosine",
    "score_mean": "mean difference of scores",
    "order_kept": "order kept",
    "top1_kept": "same first document",
    "cache_kl_mean": "mean divergence of the full cache",
    "cache_top1": "same top token with the full cache",
    "image_cosine_mean": "mean cosine of image embeddings",
    "image_cosine_min": "least cosine of image embeddings",
    "image_token_counts": "published number of image tokens",
    "image_positions": "published positions of image tokens",
    "image_answer_kl_mean": "mean divergence after a picture",
    "image_answer_kl_max": "largest divergence after a picture",
    "image_answer_own": "expected tokens of the answer about a picture",
    "audio_cosine_mean": "mean cosine of audio embeddings",
    "audio_cosine_min": "least cosine of audio embeddings",
}
"""Every rule, those of vectors, scores, pictures, sound and caches among them."""
_SHARES = (
    *("top1", "cache_top1", "order_kept", "top1_kept"),
    *("image_token_counts", "image_positions", "image_answer_own"),
)
_OF_THE_ENGINE = ("image_token_counts", "image_positions", "image_answer_own")
"""What no recipe changes."""


def rows(figures: QualityFigures, limits: Limits) -> tuple[QualityVerdict, ...]:
    """One row per limit; `measured` is None where it is not a number."""
    verdicts = []
    for rule in RULES:
        limit, measured = getattr(limits, rule), getattr(figures, rule)
        at_least = rule == "top1"
        known = measured is not None and math.isfinite(measured)
        passed = known and (measured >= limit if at_least else measured <= limit)
        verdicts.append(
            QualityVerdict(
                rule=rule, limit=limit, measured=measured, at_least=at_least, passed=passed
            )
        )
    return tuple(verdicts)


def hardly_better_than_chance(perplexity: float | None, vocabulary: int) -> bool:
    """Whether the unquantized model has learnt so little of the text that a loss against it means
    nothing; None is not a number."""
    return perplexity is not None and perplexity > _CHANCE * vocabulary


def judged(
    facts: JsonObject, limits: Limits | None, why_not: str | None, allow_loss: bool
) -> Quality:
    """The manifest's `quality`: parity, figures, parts, limits and verdicts, and whether a loss
    beyond them was let through.

    `facts` is what packager.quality.job:compare left, with the `text` that was read. `why_not` says
    why there are no figures, where that is so; pictures and sound are judged all the same.
    """
    quality = _judged(facts, limits, why_not, allow_loss)
    looked, more = pictures.judged(facts)
    heard, of_the_sounds = sounds.judged(facts)
    cache, of_the_cache = cache_type.judged(facts)
    more = (*more, *of_the_sounds, *of_the_cache)
    if looked is None and heard is None and cache is None:
        return quality
    missed = any(not row.passed for row in more)
    return quality.but(
        pictures=looked,
        sounds=heard,
        cache=cache,
        verdicts=(*quality.verdicts, *more),
        passed=not missed and quality.passed is not False,
        loss_allowed=quality.loss_allowed or (missed and allow_loss),
    )


def _judged(
    facts: JsonObject, limits: Limits | None, why_not: str | None, allow_loss: bool
) -> Quality:
    """The same of text alone."""
    parity = Parity.from_json(facts["parity"]) if facts.get("parity") else None
    figures = QualityFigures.from_json(facts["figures"]) if facts.get("figures") else None
    if figures is None and facts.get("not_numbers"):
        return skipped(why_not or "nothing was compared", parity).but(
            tokens=facts["predictions"], broken=facts["not_numbers"]
        )
    if (
        figures is not None
        and not figures.broken
        and hardly_better_than_chance(figures.reference_perplexity, at(facts, "vocabulary", int))
    ):
        figures, why_not = None, CHANCE
    differs = bool(parity and parity.findings)
    if figures is None:
        return skipped(why_not or "nothing was compared", parity).but(
            passed=None if parity is None else not differs,
            loss_allowed=differs and allow_loss,
        )
    verdicts = rows(figures, limits) if limits else ()
    lost = differs or any(not row.passed for row in verdicts)
    return Quality(
        **{name: getattr(figures, name) for name in figures.__struct_fields__},
        parts=tuple(Part.from_json(part) for part in objects_at(facts, "parts")),
        text=GateText.from_json(facts["text"]),
        limits=Grade.from_json(asdict(limits)) if limits else None,
        verdicts=verdicts,
        parity=parity,
        passed=not lost and not figures.broken,
        loss_allowed=lost and allow_loss,
        seconds=at(facts, "compare_seconds", float),
    )


def lacking(facts: JsonObject, divergence: bool) -> str | None:
    """What a comparison does not hold that a verdict stands on; None where it is complete. With
    `divergence` figures are asked for."""
    parity, figures = facts.get("parity"), facts.get("figures")
    if "retrieval" in facts:
        figures = facts["retrieval"]
        complete = isinstance(figures, dict) and figures.get("texts") and "broken" in figures
        if divergence and not complete:
            return "what vectors or scores have lost"
        divergence = False
    if (
        not isinstance(parity, dict)
        or not isinstance(parity.get("findings"), list)
        or not parity.get("texts")
        or not parity.get("tokens")
    ):
        return "the tokens that were compared"
    if not isinstance(facts.get("compare_seconds"), int | float):
        return "its time"
    if not divergence:
        return None
    if (
        not isinstance(figures, dict)
        or not {*RULES, "tokens", "broken", "reference_perplexity"} <= figures.keys()
    ):
        return "the divergence"
    if not figures["tokens"] or not facts.get("parts") or not facts.get("vocabulary"):
        return "the divergence"
    return None


def refuse_incomplete(facts: JsonObject, divergence: bool) -> None:
    """Raise PackError (exit code 4) for a comparison that proves nothing: what was not looked at
    has not passed."""
    missing = lacking(facts, divergence)
    if missing is not None:
        raise PackError(
            f"The comparison with the checkpoint lacks {missing}, so that nothing is proved.",
            "Build again; report it if that does not help.",
            ExitCode.BUDGET,
        )


def skipped(why_not: str, parity: Parity | None = None) -> Quality:
    """The manifest's `quality` where there is no divergence; `passed` is None where nothing was
    looked at."""
    return Quality(skipped=why_not, parity=parity)


def check(quality: Quality) -> None:
    """Raise PackError (exit code 4) with what differs or with the figures, unless the build may go
    on."""
    if quality.broken:
        raise PackError(
            f"{quality.broken} of {quality.tokens} predictions of the artifact are not numbers "
            "(NaN or infinite).",
            "The conversion or the engine does not work for this model: choose another recipe with "
            "--recipe.",
            ExitCode.BUDGET,
        )
    if quality.loss_allowed:
        return
    different = quality.differences
    if different:
        more = len(different) - 1
        others = f" ({more} more {'difference' if more == 1 else 'differences'})" if more else ""
        raise PackError(
            f"{different[0]}{others}.",
            "The artifact would not understand its prompts as the checkpoint does: build it again "
            "from a consistent checkpoint, "
            "or let it through with --allow-quality-loss, which the manifest records.",
            ExitCode.BUDGET,
        )
    missed = [row for row in quality.verdicts if not row.passed]
    if missed:
        grade = quality.limits.grade if quality.limits else "its class of"
        raise PackError(
            f"The artifact lost more than {grade} weights may: {'; '.join(map(sentence, missed))}.",
            f"{_way_out(missed)}, or let it through with --allow-quality-loss, which the manifest "
            "records.",
            ExitCode.BUDGET,
        )


def _way_out(missed: list[QualityVerdict]) -> str:
    if all(row.rule.startswith("cache_") for row in missed):
        return "Take a cache type of more bits, the end of --recipe (/kv_...)"
    if all(row.rule in _OF_THE_ENGINE for row in missed):
        return "Install the tested version of the engine (constraints.txt)"
    return "Choose a recipe of more bits with --recipe"


def sentence(row: QualityVerdict) -> str:
    """A verdict in words: `mean divergence 0.0313 nats of at most 0.15`."""
    least = "least" if row.at_least else "most"
    what = WORDS.get(row.rule, row.rule)
    return f"{what} {shown(row.rule, row.measured)} of at {least} {_limit(row)}"


def shown(rule: str, value: float | None) -> str:
    """A figure as people read it: nats, percent, a ratio."""
    if value is None:
        return "unknown"
    if rule in _SHARES:
        return f"{value:.1%}"
    if rule.startswith(("cosine_", "score_", "image_cosine_", "audio_cosine_")):
        return f"{value:.4f}"
    if rule.startswith(("kl_", "cache_kl_", "image_answer_kl_")):
        return f"{value:.4f} nats"
    return f"{value:.3f}" if rule == "perplexity_ratio" else f"{value:.2f}"


def _limit(row: QualityVerdict) -> str:
    return f"{row.limit:.0%}" if row.rule in _SHARES else f"{row.limit:g}"


def retrieval_summary(lost: RetrievalQuality, loss_allowed: bool) -> str:
    """One line of what vectors or scores have lost."""
    rule = "cosine_mean" if lost.cosine_mean is not None else "score_mean"
    parts = [f"{WORDS[name]} {shown(name, getattr(lost, name))}" for name in (rule, "order_kept")]
    return f"{', '.join(parts)}{'; loss allowed' if loss_allowed else ''}"


def summary(quality: Quality) -> str:
    """One line for the stage's row."""
    same = (
        ""
        if quality.parity is None or quality.differences
        else "same tokens, template and end of turn; "
    )
    if quality.retrieval is not None:
        return retrieval_summary(quality.retrieval, quality.loss_allowed)
    if quality.kl_mean is None:
        outcome = f"{same}quality not compared: {quality.skipped or 'it was not asked for'}"
    else:
        outcome = (
            f"{same}divergence {shown('kl_mean', quality.kl_mean)}, same top token "
            f"{shown('top1', quality.top1)}"
        )
    seen = quality.pictures
    if seen is not None and seen.answer_kl_mean is not None:
        outcome += f"; after a picture {shown('kl_mean', seen.answer_kl_mean)}"
    return f"{outcome}; loss allowed" if quality.loss_allowed else outcome
