"""The two jobs of the quality gate for what gives vectors or scores.

One keeps what the unquantized checkpoint makes of the corpus, one compares the artifact with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from packager.checkpoint import Checkpoint
from packager.checkpoint import retrieval as rules
from packager.errors import bad_input
from packager.json_values import JsonDict, JsonObject, texts_at
from packager.process import resolve
from packager.quality.parity_corpus import TEXTS, shipped_texts
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.quality.retrieval_corpus import Query, queries
from packager.runtime import Report
from packager.session import RetrievalSession
from packager.units import human_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

KEPT = "retrieval.safetensors"
_CONTEXT = 1024
"""Tokens of the session that is compared: more than any text of the corpus."""
_UNIT = 1e-3
_FEWER_PROMPTS = 2_000_000_000
"""Parameters from which a reranker reads half of the corpus: its prompts are five times as long as
the texts alone, and the reference computes in numpy."""
TOLD_APART = {"embed": 0.01, "rerank": 0.02}
"""How far two documents' scores lie apart in the unquantized model where their order counts."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Every text, and its token ids by the checkpoint's own tokenizer.

    For an embedder the texts of a query are itself and then its documents; for a reranker its
    prompts, one per document.
    """

    task: str
    ids: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    """Numbers of the texts that belong to one query."""
    texts: tuple[str, ...] = ()

    def ranked(self, values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The scores of each query's documents: cosines of vectors, or the scores themselves."""
        for group in self.groups:
            rows = values[list(group)]
            yield rows[1:] @ rows[0] if self.task == "embed" else rows


def corpus(source: Checkpoint, task: str) -> Corpus:
    """The corpus as the checkpoint's own tokenizer has it. Raises PackError (exit code 6) for
    conventions that are not built."""
    tokenizer = reference_tokenizer(source)
    asked = queries()
    if task == "rerank" and source.shape.parameters() >= _FEWER_PROMPTS:
        asked = asked[::2]
    own = rules.conventions(source) if task == "embed" else None
    texts: list[str] = []
    groups: list[tuple[int, ...]] = []
    for query in asked:
        more = _texts(query, own)
        groups.append(tuple(range(len(texts), len(texts) + len(more))))
        texts += more
    ids = [tokenizer.encode(text, add_special_tokens=own is not None).ids for text in texts]
    return Corpus(task, tuple(map(tuple, ids)), tuple(groups), tuple(texts))


def _texts(query: Query, own: rules.Conventions | None) -> list[str]:
    if own is not None:
        return [rules.query_text(own, query.text), *query.documents]
    return [rules.rerank_text(query.text, document) for document in query.documents]


def reference(report: Report, *, checkpoint: str, task: str, out: str) -> JsonObject:
    """Run the unquantized checkpoint over the corpus and keep its vectors or scores, float32.

    Returns `tokens` and `texts`; `not_possible`, a sentence, where this machine's memory does not
    reach. Raises PackError (bad input) naming a tensor that holds NaN.
    """
    # Late: numpy, for the child that computes.
    import psutil
    from safetensors.numpy import save_file

    from packager.checkpoint.numbers import check_all_finite
    from packager.reference import memory_bytes, pooled

    source = Checkpoint.open(Path(checkpoint))
    read = corpus(source, task)
    needed = memory_bytes(source.shape, list(map(len, read.ids)))
    free = psutil.virtual_memory().available
    if needed > free:
        sizes = f"{human_bytes(needed)} of memory and {human_bytes(free)} are free"
        return {"not_possible": f"the unquantized model needs {sizes}"}
    total = sum(map(len, read.ids))
    report.note(f"the unquantized model reads {total} tokens")
    check_all_finite(source)
    if task == "embed":
        values = pooled.vectors(source, read.ids, report)
    else:
        tokenizer = reference_tokenizer(source)
        answers = rules.answer_ids(tokenizer, str(source.tokenizer_json))
        values = pooled.scores(source, read.ids, answers, report)
    Path(out).mkdir(parents=True, exist_ok=True)
    save_file({"values": values}, Path(out) / KEPT)
    return {"tokens": total, "texts": len(read.ids)}


def compare(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    checkpoint: str,
    task: str,
    dimension: int | None,
    reference: str | None,
) -> JsonObject:
    """Parity of tokens and conventions, and with a `reference` (the folder that the other job left)
    what vectors or scores have lost.

    Returns `parity`, `retrieval` (the figures, None without a reference) and `compare_seconds`.
    """
    started = time.monotonic()
    source = Checkpoint.open(Path(checkpoint))
    read = corpus(source, task)
    longest = max(_CONTEXT, *map(len, read.ids))
    make = resolve(session)
    model: RetrievalSession = make(
        artifact, {**settings, "task": task, "context": min(longest, source.shape.context)}
    )
    try:
        report.note("tokens, end of text and pooling against the checkpoint's own")
        values = _values(model, read)
        parity = _parity(model, source, read, values)
    finally:
        model.close()
    kept = None if reference is None else _kept(Path(reference) / KEPT, values.shape)
    return {
        "parity": parity,
        "retrieval": None if kept is None else figures(read, values, kept, dimension),
        "compare_seconds": time.monotonic() - started,
    }


def _values(model: RetrievalSession, read: Corpus) -> NDArray[np.float32]:
    import numpy as np

    # By the artifact's own tokens: a lost end of text shows in the vector as well.
    if read.task == "embed":
        return model.embed([model.encode(text) for text in read.texts])
    return np.array(model.score([model.plain(text) for text in read.texts]), np.float32)


def _kept(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    from safetensors.numpy import load_file

    values: NDArray[np.float32] = load_file(path)["values"]
    if values.shape != shape:
        raise bad_input(
            f"{path} holds values of the shape {list(values.shape)} and the artifact gives "
            f"{list(shape)}.",
            "`qwen-pack cache --clear` empties the cache.",
        )
    return values


def figures(
    read: Corpus,
    values: NDArray[np.float32],
    wanted: NDArray[np.float32],
    dimension: int | None = None,
) -> JsonObject:
    """What was lost: cosines of vectors, at the packaged `dimension` as well, or differences of
    scores; and the share of documents that keep their order."""
    import numpy as np

    broken = int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum())
    counts: JsonDict = {
        "texts": len(values),
        "queries": len(read.groups),
        "tokens": sum(map(len, read.ids)),
        "broken": broken,
    }
    if broken:
        return counts
    if read.task == "embed":
        sizes = dict.fromkeys((values.shape[1], dimension or values.shape[1]))
        rows = {size: _lost(read, values, wanted, size) for size in sizes}
        # Each rule at the dimension that loses most by it.
        worst = {name: min(row[name] for row in rows.values()) for name in rows[values.shape[1]]}
        kept = [{"dimension": size, **row} for size, row in rows.items()]
        return {**counts, "dimensions": kept, **worst}
    difference = np.abs(values - wanted)
    return {
        **counts,
        "score_mean": float(difference.mean()),
        "score_max": float(difference.max()),
        **_order(read, values, wanted),
    }


def _lost(
    read: Corpus, values: NDArray[np.float32], wanted: NDArray[np.float32], dimension: int
) -> dict[str, float]:
    """What vectors have lost of which the first `dimension` numbers are kept."""
    import numpy as np

    from packager.reference.pooled import normalized

    # Not brought to length 1 where all is kept: a vector of another length is a loss.
    whole = dimension == values.shape[1]
    mine = values if whole else normalized(values, dimension)
    theirs = normalized(wanted, dimension)
    # The distance of two vectors of length 1 is the root of twice one less their cosine.
    cosines = 1 - ((mine.astype(np.float64) - theirs) ** 2).sum(axis=1) / 2
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_p5": float(np.quantile(cosines, 0.05)),
        "cosine_min": float(cosines.min()),
        **_order(read, mine, theirs),
    }


def _order(
    read: Corpus, values: NDArray[np.float32], wanted: NDArray[np.float32]
) -> dict[str, float]:
    """`order_kept`: of two documents of a query that the unquantized model tells apart, how many
    keep their order; `top1_kept`: how many queries have a first document that it does not tell
    from its own."""
    kept = pairs = first = 0
    for mine, theirs in zip(read.ranked(values), read.ranked(wanted), strict=True):
        first += int(theirs.max() - theirs[mine.argmax()] < TOLD_APART[read.task])
        for one, other in combinations(range(len(theirs)), 2):
            if abs(theirs[one] - theirs[other]) >= TOLD_APART[read.task]:
                pairs += 1
                kept += int((mine[one] > mine[other]) == (theirs[one] > theirs[other]))
    return {
        "order_kept": kept / pairs if pairs else 1.0,
        "top1_kept": first / len(read.groups),
    }


def _parity(
    model: RetrievalSession, source: Checkpoint, read: Corpus, values: NDArray[np.float32]
) -> JsonObject:
    """As the manifest keeps it; see packager.records.Parity."""
    tokenizer = reference_tokenizer(source)
    texts = [*TEXTS, *shipped_texts()]
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    findings = [
        *_tokens(model, tokenizer, texts, read.task),
        *_controls(model, {number: token.content for number, token in added}),
        *_conventions(model, source, read.task),
        *(_lengths(values) if read.task == "embed" else ()),
    ]
    return {
        "texts": len(texts),
        "tokens": sum(len(tokenizer.encode(text).ids) for text in texts),
        "control_tokens": len(added),
        "conversations": 0,
        "ends": [],
        "stopped_after": None,
        "notes": [],
        "findings": findings,
    }


def _tokens(
    model: RetrievalSession, tokenizer: Tokenizer, texts: Sequence[str], task: str
) -> Iterator[str]:
    for text in texts:
        wanted = tokenizer.encode(text, add_special_tokens=task == "embed").ids
        got = model.encode(text) if task == "embed" else model.plain(text)
        if got == wanted:
            continue
        shown = repr(text[:24])
        if got[:-1] == wanted or got == wanted[:-1]:
            more = "more" if len(got) > len(wanted) else "less"
            yield f"The artifact puts one token {more} after {shown} than the checkpoint does"
        else:
            yield f"{shown} becomes other tokens in the artifact than in the checkpoint"
        return


def _controls(model: RetrievalSession, added: dict[int, str]) -> Iterator[str]:
    for number, text in added.items():
        got = model.plain(text)
        if got != [number]:
            yield (
                f"The control token {text} is {got} in the artifact and [{number}] in the "
                "checkpoint"
            )
            return


def _conventions(model: RetrievalSession, source: Checkpoint, task: str) -> Iterator[str]:
    facts = model.facts()
    pooling = {"embed": "last", "rerank": "rank"}[task]
    if facts["pooling"] != pooling:
        yield f"The artifact pools by {facts['pooling']} and not by {pooling}"
    if facts.get("padding") == "left":
        yield (
            "The artifact's tokenizer pads on the left, where its application does not look for "
            "the end of a text"
        )
    if task == "embed":
        end = rules.conventions(source).end
        if facts["end"] != end:
            yield (
                f"The artifact ends a text with the token {facts['end']} and the checkpoint with "
                f"{end}"
            )
        if end is not None and facts.get("cut", end) != end:
            yield (
                "The artifact's tokenizer cuts a long text to one that ends with the token "
                f"{facts['cut']} and not with {end}"
            )
        return
    if tuple(texts_at(facts, "labels")) != rules.ANSWERS:
        yield f"The head of the artifact says {facts['labels']} and not {list(rules.ANSWERS)}"
    if facts["template"] != rules.RERANK.replace("{instruction}", rules.INSTRUCTION):
        yield "The prompt of the artifact for a query and a document is not the published one"


def _lengths(values: NDArray[np.float32]) -> Iterator[str]:
    import numpy as np

    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    wrong = np.abs(lengths - 1) > _UNIT
    if wrong.any():
        yield f"A vector of the artifact has the length {lengths[wrong][0]:.3g} and not 1"
