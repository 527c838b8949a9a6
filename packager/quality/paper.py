"""The quality figures as people read them: rows of a table, and the paragraph of a package's
README."""

from __future__ import annotations

from typing import Any

from packager.quality.verdict import differences, sentence, shown

COLUMNS = (
    "text",
    "tokens",
    "divergence, mean",
    "P95",
    "max",
    "same top token",
    "perplexity",
    "unquantized",
)


def table(quality: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per part and one over all, under COLUMNS; empty where nothing was compared."""
    if quality.get("skipped") or quality.get("kl_mean") is None:
        return []
    rows = [({"name": "all"} | quality), *quality["parts"]]
    return [_row(row) for row in (rows if len(rows) > 2 else rows[:1])]


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    figures = (
        f"{row[name]:.4f}" if row[name] is not None else ""
        for name in ("kl_mean", "kl_p95", "kl_max")
    )
    perplexities = (shown(name, row[name]) for name in ("perplexity", "reference_perplexity"))
    return (row["name"], str(row["tokens"]), *figures, shown("top1", row["top1"]), *perplexities)


def parity(quality: dict[str, Any]) -> list[str]:
    """What was found of tokens, template and end of turn, a sentence a line; empty where nobody
    looked."""
    found = quality.get("parity")
    if found is None:
        return []
    different = differences(found)
    rendered = (
        f", {found['conversations']} conversations rendered" if found.get("conversations") else ""
    )
    same = (
        "passed: tokens, chat template and end of turn are the checkpoint's, "
        f"{found.get('texts', 0)} texts encoded{rendered}."
    )
    said = [f"MISSED: {text}." for text in different] or [same]
    return said + [f"{text}." for text in found.get("notes") or []]


def markdown(quality: dict[str, Any]) -> str:
    """The section of a package's README."""
    allowed = (
        "\n**It lost more than it may; whoever built it let that through.**\n"
        if quality.get("loss_allowed")
        else ""
    )
    language = "".join(f"* {line}\n" for line in parity(quality))
    if quality.get("skipped"):
        return (
            "## Quality\n\nNot compared with the unquantized model: "
            f"{quality['skipped']}.\n{allowed}\n{language}"
        )
    head = f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}\n"
    body = "".join(f"| {' | '.join(row)} |\n" for row in table(quality))
    limits = "".join(
        f"* {'passed' if row['passed'] else 'MISSED'}: {sentence(row)}\n"
        for row in quality["verdicts"]
    )
    read = (
        f"On {quality['tokens']} tokens of the text `{quality['text']['name']}`, against the "
        "unquantized model; divergence in nats.\n"
    )
    return f"## Quality\n\n{read}{allowed}\n{head}{body}\n{limits}{language}"
