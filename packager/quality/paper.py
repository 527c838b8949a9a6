"""The quality figures as people read them: rows of a table, and the paragraph of a package's
README."""

from __future__ import annotations

from packager.escapes import code
from packager.escapes import markdown as escape
from packager.quality.cache_type import sentence as cache_sentence
from packager.quality.verdict import sentence, shown
from packager.records import Quality
from packager.records.quality import QualityFigures

COLUMNS = (
    "text",
    "tokens",
    "divergence, mean",
    "P95",
    "P99",
    "max",
    "same top token",
    "perplexity",
    "unquantized",
)


def table(quality: Quality) -> list[tuple[str, ...]]:
    """One row per part and one over all, under COLUMNS; empty where nothing was compared."""
    if quality.skipped or quality.kl_mean is None:
        return []
    rows = [_row("all", quality), *(_row(part.name, part) for part in quality.parts)]
    return rows if len(rows) > 2 else rows[:1]


def _row(name: str, row: QualityFigures) -> tuple[str, ...]:
    figures = (
        "" if value is None else f"{value:.4f}"
        for value in (row.kl_mean, row.kl_p95, row.kl_p99, row.kl_max)
    )
    perplexities = (
        shown("perplexity", row.perplexity),
        shown("reference_perplexity", row.reference_perplexity),
    )
    return (name, str(row.tokens), *figures, shown("top1", row.top1), *perplexities)


def parity(quality: Quality) -> list[str]:
    """What was found of tokens, template and end of turn, a sentence a line; empty where it was not
    looked at."""
    compared = quality.parity
    if compared is None:
        return []
    how = [f"{compared.texts} texts encoded"]
    if compared.conversations:
        how.append(f"{compared.conversations} conversations rendered")
    elif compared.same_template:
        how.append("the template equal letter by letter")
    if compared.conversations or compared.same_template:
        what = "tokens, chat template and end of turn"
    else:
        what = "tokens and end of turn" if compared.ends else "tokens, end of text and pooling"
    whose = {
        "file": "what the file's own texts say",
        "tokenizer": "those of the tokenizer that was named",
    }.get(compared.held_against or "", "the checkpoint's")
    same = f"passed: {what} are {whose}, {', '.join(how)}."
    lines = [f"MISSED: {text}." for text in compared.findings] or [same]
    return lines + [f"{text}." for text in compared.notes]


def pictures(quality: Quality) -> list[str]:
    """What was compared of pictures, a sentence a line; empty for text alone."""
    found = quality.pictures
    if found is None:
        return []
    lines = [
        f"{found.pictures} pictures ({found.tokens} image tokens) against the unquantized vision "
        f"tower: mean cosine {shown('cosine_mean', found.cosine_mean)}, least "
        f"{shown('cosine_min', found.cosine_min)}."
    ]
    if found.sizes and found.token_counts is not None:
        count = round(found.sizes * found.token_counts)
        lines.append(f"{count} of {found.sizes} sizes get the published number of image tokens.")
    if found.positions is not None:
        lines.append(f"{found.positions:.0%} of the image tokens have the published positions.")
    if found.answer_tokens:
        lines.append(
            f"A text of {found.answer_tokens} tokens after a picture: divergence "
            f"{shown('kl_mean', found.answer_kl_mean)} on average, "
            f"{shown('kl_max', found.answer_kl_max)} at most, same top token "
            f"{shown('top1', found.answer_top1)}."
        )
    elif found.answer_skipped:
        lines.append(f"Text after a picture was not compared: {found.answer_skipped}.")
    return lines


def noise(quality: Quality) -> list[str]:
    """How well the mean is known, and what a full cache of the packaged type loses; a sentence a
    line."""
    lines = []
    if quality.kl_error is not None:
        within = f"{2 * quality.kl_error:.5f} nats"
        lines.append(f"The mean divergence is known within {within}: less tells no two apart.")
    if quality.cache is not None:
        lines.append(cache_sentence(quality.cache))
    return lines


def _verdicts(quality: Quality) -> str:
    return "".join(
        f"* {'passed' if row.passed else 'MISSED'}: {escape(sentence(row))}\n"
        for row in quality.verdicts
    )


def retrieval(quality: Quality) -> str:
    """What vectors or scores have lost, a sentence and a table; empty where that was not asked."""
    lost = quality.retrieval
    if lost is None:
        return ""
    read = (
        f"On {lost.texts} texts ({lost.tokens} tokens) of {lost.queries} queries with their "
        "documents, in several languages, against the unquantized model.\n"
    )
    if not lost.dimensions:
        return (
            f"{read}\nScores differ by {shown('score_mean', lost.score_mean)} on average and by "
            f"{shown('score_max', lost.score_max)} at most; the first document of "
            f"{shown('top1_kept', lost.top1_kept)} of the queries is the same.\n"
        )
    head = (
        "| numbers kept | cosine, mean | P5 | least | order kept | same first document |\n"
        f"| ---: |{' ---: |' * 5}\n"
    )
    rows = "".join(
        f"| {row.dimension} | {shown('cosine_mean', row.cosine_mean)} "
        f"| {shown('cosine_p5', row.cosine_p5)} | {shown('cosine_min', row.cosine_min)} "
        f"| {shown('order_kept', row.order_kept)} | {shown('top1_kept', row.top1_kept)} |\n"
        for row in lost.dimensions
    )
    return f"{read}\n{head}{rows}"


def markdown(quality: Quality) -> str:
    """The section of a package's README."""
    allowed = (
        "\n**It lost more than its limits allow, and the build accepted that.**\n"
        if quality.loss_allowed
        else ""
    )
    language = "".join(f"* {escape(row)}\n" for row in parity(quality))
    seen = "".join(f"{escape(line)}\n" for line in pictures(quality))
    seen = f"\n{seen}" if seen else ""
    if quality.retrieval is not None:
        return f"## Quality\n\n{retrieval(quality)}{allowed}\n{_verdicts(quality)}{language}"
    if quality.skipped or quality.text is None:
        return (
            "## Quality\n\nNot compared with the unquantized model: "
            f"{escape(str(quality.skipped))}.\n{allowed}{seen}\n{_verdicts(quality)}{language}"
        )
    head = f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}\n"
    body = "".join(f"| {' | '.join(map(escape, row))} |\n" for row in table(quality))
    limits = _verdicts(quality)
    read = (
        f"On {quality.tokens} tokens of the text {code(quality.text.name)}, against the "
        "unquantized model; divergence in nats.\n"
    )
    more = "".join(f"{escape(line)}\n" for line in noise(quality))
    return f"## Quality\n\n{read}{allowed}\n{head}{body}\n{more}{seen}\n{limits}{language}"
