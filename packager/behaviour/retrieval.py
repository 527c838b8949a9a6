"""Vectors and scores of a finished package: a job for a child process."""

from __future__ import annotations

from collections.abc import Sequence

from packager.checkpoint import retrieval as rules
from packager.json_values import JsonObject, at, at_or_none
from packager.process import resolve
from packager.runtime import Report
from packager.session import RetrievalSession


def embed(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    texts: Sequence[str],
    dimension: int | None,
) -> JsonObject:
    """`vectors` of the texts, of length 1, the first `dimension` numbers of each; `tokens` of each
    text and how many were `cut` to the context, their end of text kept."""
    # Late: numpy, for the child that computes.
    from packager.reference.pooled import normalized

    model: RetrievalSession = resolve(session)(artifact, {**settings, "task": "embed"})
    try:
        end, context = at_or_none(model.facts(), "end", int), at(settings, "context", int)
        whole = [model.encode(text) for text in texts]
        rows = model.embed([rules.shortened(ids, context, end) for ids in whole])
    finally:
        model.close()
    return {
        "vectors": normalized(rows, dimension).tolist(),
        "tokens": [min(len(ids), context) for ids in whole],
        "cut": sum(len(ids) > context for ids in whole),
    }


def rerank(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    query: str,
    documents: Sequence[str],
    instruction: str | None,
) -> JsonObject:
    """`scores` of the documents, from 0 to 1, and how many documents were `cut` so that the prompt
    keeps its end."""
    model: RetrievalSession = resolve(session)(artifact, {**settings, "task": "rerank"})
    try:
        context = at(settings, "context", int)
        head, tail = rules.rerank_text(query, "\0", instruction).split("\0")
        before, behind = model.plain(head), model.plain(tail)
        room = context - len(before) - len(behind)
        prompts, cut = [], 0
        for document in documents:
            ids = model.plain(rules.rerank_text(query, document, instruction))
            if len(ids) > context:
                cut += 1
                ids = [*before, *model.plain(document)[: max(0, room)], *behind]
            prompts.append(ids)
        scores = model.score(prompts)
    finally:
        model.close()
    return {"scores": scores, "cut": cut, "tokens": list(map(len, prompts))}
