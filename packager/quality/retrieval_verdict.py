"""What was lost of vectors or scores, judged by the class of the recipe."""

from __future__ import annotations

from dataclasses import asdict

from packager.json_values import JsonObject, at
from packager.quality.retrieval_limits import SOURCE, RetrievalLimits
from packager.quality.verdict import skipped
from packager.records import Parity, Quality, QualityVerdict
from packager.records.quality import GateText, Grade, RetrievalQuality

_RULES = {
    "embed": ("cosine_mean", "cosine_p5", "cosine_min", "order_kept", "top1_kept"),
    "rerank": ("score_mean", "order_kept", "top1_kept"),
}
_AT_MOST = ("score_mean",)


def rows(task: str, lost: RetrievalQuality, limits: RetrievalLimits) -> tuple[QualityVerdict, ...]:
    """One row per limit of that task."""
    verdicts = []
    for rule in _RULES[task]:
        limit, measured = getattr(limits, rule), getattr(lost, rule)
        at_least = rule not in _AT_MOST
        passed = measured is not None and (measured >= limit if at_least else measured <= limit)
        verdicts.append(
            QualityVerdict(
                rule=rule, limit=limit, measured=measured, at_least=at_least, passed=passed
            )
        )
    return tuple(verdicts)


def judged(
    facts: JsonObject,
    task: str,
    grade: str | None,
    limits: RetrievalLimits | None,
    why_not: str | None,
    allow_loss: bool,
) -> Quality:
    """The manifest's `quality` of an embedder or a reranker; see packager.quality.verdict.judged.

    `facts` is what packager.quality.retrieval:compare left, with the `text` that was read.
    """
    parity = Parity.from_json(facts["parity"])
    differs = bool(parity.findings)
    if facts.get("retrieval") is None:
        return skipped(why_not or "nothing was compared", parity).but(
            passed=not differs, loss_allowed=differs and allow_loss
        )
    figures = RetrievalQuality.from_json(facts["retrieval"])
    if figures.broken:
        return skipped("its results are not numbers", parity).but(
            tokens=figures.texts, broken=figures.broken, passed=False
        )
    verdicts = rows(task, figures, limits) if limits else ()
    lost = differs or any(not row.passed for row in verdicts)
    return Quality(
        retrieval=figures,
        text=GateText.from_json(facts["text"]),
        limits=Grade.from_json({"grade": grade, "source": SOURCE, **asdict(limits)})
        if limits
        else None,
        verdicts=verdicts,
        parity=parity,
        passed=not lost,
        loss_allowed=lost and allow_loss,
        seconds=at(facts, "compare_seconds", float),
    )
