"""Embedding texts by our sessions and by others' libraries: jobs for child processes, whose memory
is read from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packager.process import resident_bytes, resolve
from packager.runtime import Report

# Any: libraries that have no types, and are installed for this comparison alone.


def _timed(embed: Callable[[list[str]], Any], texts: list[str], began: float) -> dict[str, Any]:
    """Documents per second of all texts handed over together, after a text that warms up."""
    load_s = time.perf_counter() - began
    embed(texts[:1])
    start = time.perf_counter()
    rows = embed(texts)
    seconds = time.perf_counter() - start
    assert len(rows) == len(texts)
    return {
        "documents_per_s": len(texts) / seconds,
        "load_s": load_s,
        "steady_bytes": resident_bytes(),
        "vector": [float(number) for number in rows[0]],
    }


def ours(
    report: Report,
    *,
    session: str,
    artifact: str,
    texts: list[str],
    threads: int,
    context: int,
    kv: str,
) -> dict[str, Any]:
    """By the session of a runtime, from texts to vectors."""
    make, began = resolve(session), time.perf_counter()
    settings = {"task": "embed", "context": context, "threads": threads, "kv": kv}
    model = make(artifact, settings)
    return _timed(lambda some: model.embed([model.encode(text) for text in some]), texts, began)


def optimum(
    report: Report, *, checkpoint: str, artifact: str, texts: list[str], threads: int
) -> dict[str, Any]:
    """By optimum-intel with what it takes when nothing is said; exported before, into `artifact`.
    Without `texts` it exports."""
    import torch
    from optimum.intel import OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    if not texts:
        model = OVModelForFeatureExtraction.from_pretrained(checkpoint, export=True)
        model.save_pretrained(artifact)
        AutoTokenizer.from_pretrained(checkpoint, padding_side="left").save_pretrained(artifact)
        return {}
    began = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(artifact, padding_side="left")
    model = OVModelForFeatureExtraction.from_pretrained(
        artifact, ov_config={"INFERENCE_NUM_THREADS": threads}
    )

    def embed(some: list[str]) -> Any:
        inputs = tokenizer(some, padding=True, return_tensors="pt")
        states = model(**inputs).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(states, dim=1).numpy()

    return _timed(embed, texts, began)


def sentence_transformers(
    report: Report, *, checkpoint: str, texts: list[str], threads: int, dtype: str | None
) -> dict[str, Any]:
    """By Sentence Transformers on the processor, in the checkpoint's own type or in `dtype`."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    began = time.perf_counter()
    how = {"dtype": getattr(torch, dtype)} if dtype else {}
    model = SentenceTransformer(checkpoint, device="cpu", model_kwargs=how)
    return _timed(lambda some: model.encode(some), texts, began)


def _pairs(documents: int, seed: int) -> list[str]:
    """Prompts of a reranker: queries of the gate's corpus with documents of other queries, too."""
    import random

    from packager.checkpoint.retrieval import rerank_text
    from packager.quality.retrieval_corpus import queries

    asked, chance = queries(), random.Random(seed)
    every = [text for query in asked for text in query.documents]
    return [rerank_text(chance.choice(asked).text, chance.choice(every)) for _ in range(documents)]


def scores(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    documents: int,
    seed: int,
) -> dict[str, Any]:
    """By the session of a runtime, from prompts to scores."""
    model = resolve(session)(artifact, settings)
    try:
        return {"scores": model.score([model.plain(text) for text in _pairs(documents, seed)])}
    finally:
        model.close()


def scores_of_transformers(
    report: Report, *, checkpoint: str, documents: int, seed: int
) -> dict[str, Any]:
    """By transformers in float32: the share of yes beside no behind each prompt."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    from packager.checkpoint.retrieval import answer_ids

    tokenizer = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
    rows = list(answer_ids(tokenizer, checkpoint))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    made = []
    with torch.no_grad():
        for text in _pairs(documents, seed):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            last = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1, rows]
            made.append(float(last.double().softmax(0)[0]))
    return {"scores": made}


def texts_of(
    report: Report, *, checkpoint: str, tokens: int, count: int, seed: int
) -> dict[str, Any]:
    """Texts of about so many tokens, of random words of the checkpoint's own vocabulary."""
    import random

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
    words = random.Random(seed)
    made, sizes = [], []
    for _ in range(count):
        ids = [words.randrange(300, 20_000) for _ in range(tokens)]
        text = tokenizer.decode(ids).replace("\n", " ").replace("\0", "")
        ids = tokenizer.encode(text).ids[:tokens]
        made.append(tokenizer.decode(ids))
        sizes.append(len(tokenizer.encode(made[-1]).ids))
    return {"texts": made, "tokens": sizes}
