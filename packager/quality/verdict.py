"""What the figures of a comparison mean: one row per limit, and whether the build may go on."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from packager.errors import ExitCode, PackError
from packager.quality.thresholds import Limits

_CHANCE = 0.8
"""A perplexity of this share of the vocabulary: such a model has learnt nothing of this text.
Random weights give 1 and more."""

CHANCE = (
    "the unquantized model predicts the text hardly better than chance, so that what is lost "
    "says nothing"
)

RULES = {
    "kl_mean": "mean divergence",
    "top1": "same top token",
    "perplexity_ratio": "perplexity ratio",
}


def rows(figures: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    """One row per limit: rule, limit, measured (None: no number), at_least, passed."""
    found = []
    for rule in RULES:
        limit, measured = getattr(limits, rule), figures[rule]
        at_least = rule == "top1"
        known = measured is not None and math.isfinite(measured)
        passed = known and (measured >= limit if at_least else measured <= limit)
        found.append(
            {
                "rule": rule,
                "limit": limit,
                "measured": measured,
                "at_least": at_least,
                "passed": passed,
            }
        )
    return found


def hardly_better_than_chance(perplexity: float, vocabulary: int) -> bool:
    """Whether the unquantized model has learnt so little of the text that a loss against it means
    nothing."""
    return perplexity > _CHANCE * vocabulary


def judged(
    facts: dict[str, Any], limits: Limits | None, why_not: str | None, allow_loss: bool
) -> dict[str, Any]:
    """The manifest's `quality`: parity, figures, parts, limits and verdicts, and whether a loss
    beyond them was let through.

    `why_not` says why there are no figures, where that is so.
    """
    figures, parity = facts.get("figures"), facts.get("parity")
    if (
        figures is not None
        and not figures["broken"]
        and hardly_better_than_chance(figures["reference_perplexity"], facts["vocabulary"])
    ):
        figures, why_not = None, CHANCE
    differs = bool(differences(parity))
    if figures is None:
        return {
            **skipped(why_not or "nothing was compared", parity),
            "passed": not differs,
            "loss_allowed": differs and allow_loss,
        }
    verdicts = rows(figures, limits) if limits else []
    lost = differs or any(not row["passed"] for row in verdicts)
    return {
        "skipped": None,
        **figures,
        "parts": facts["parts"],
        "text": facts["text"],
        "limits": asdict(limits) if limits else None,
        "verdicts": verdicts,
        "parity": parity,
        "passed": not lost and not figures["broken"],
        "loss_allowed": lost and allow_loss,
        "seconds": facts["compare_seconds"],
    }


def skipped(why_not: str, parity: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest's `quality` where there is no divergence; `passed` is None where nothing was
    looked at."""
    return {"skipped": why_not, "parity": parity, "passed": None, "loss_allowed": False}


def differences(parity: dict[str, Any] | None) -> list[str]:
    """In what the artifact speaks another language than its checkpoint, as sentences."""
    return list((parity or {}).get("findings") or [])


def check(quality: dict[str, Any]) -> None:
    """Raise PackError (exit code 4) with what differs or with the figures, unless the build may go
    on."""
    if quality.get("broken"):
        raise PackError(
            f"{quality['broken']} of {quality['tokens']} predictions of the artifact are no "
            "numbers (NaN or infinite).",
            "The conversion or the engine is broken for this model: choose another recipe with "
            "--recipe.",
            ExitCode.BUDGET,
        )
    if quality["loss_allowed"]:
        return
    different = differences(quality["parity"])
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
    missed = [row for row in quality.get("verdicts") or [] if not row["passed"]]
    if missed:
        raise PackError(
            f"The artifact lost more than {quality['limits']['grade']} weights may: "
            f"{'; '.join(map(sentence, missed))}.",
            "Choose a recipe of more bits with --recipe, or let it through with "
            "--allow-quality-loss, which the manifest records.",
            ExitCode.BUDGET,
        )


def sentence(row: dict[str, Any]) -> str:
    """A verdict in words: `mean divergence 0.0313 nats of at most 0.15`."""
    return (
        f"{RULES[row['rule']]} {shown(row['rule'], row['measured'])} of at "
        f"{'least' if row['at_least'] else 'most'} {_limit(row)}"
    )


def shown(rule: str, value: float | None) -> str:
    """A figure as people read it: nats, percent, a ratio."""
    if value is None:
        return "unknown"
    if rule == "top1":
        return f"{value:.1%}"
    if rule.startswith("kl_"):
        return f"{value:.4f} nats"
    return f"{value:.3f}" if rule == "perplexity_ratio" else f"{value:.2f}"


def _limit(row: dict[str, Any]) -> str:
    return f"{row['limit']:.0%}" if row["rule"] == "top1" else f"{row['limit']:g}"


def summary(quality: dict[str, Any]) -> str:
    """One line for the stage's row."""
    same = (
        ""
        if quality.get("parity") is None or differences(quality["parity"])
        else "same tokens, template and end of turn; "
    )
    if quality.get("kl_mean") is None:
        said = f"{same}quality not compared: {quality.get('skipped') or 'it was not asked for'}"
    else:
        said = (
            f"{same}divergence {shown('kl_mean', quality['kl_mean'])}, same top token "
            f"{shown('top1', quality.get('top1'))}"
        )
    return f"{said}; loss allowed" if quality.get("loss_allowed") else said
