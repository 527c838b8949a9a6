"""An embedder and a reranker that were trained, in two languages: which document comes first means
something, and stays so in every engine within the limits of 8 and of 4 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from packager.checkpoint import Checkpoint, retrieval
from packager.checkpoint.adapter import Adapter
from packager.checkpoint.composed import compose
from packager.process import resolve, run_job
from packager.quality import retrieval as gate
from packager.quality import retrieval_limits, retrieval_verdict
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.records.quality import RetrievalQuality
from packager.reference import pooled
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.shipping_packages import finish
from tests.support.tiers import thorough
from training.retrieval import LANGUAGES, Asked, held_out, write_base

ADAPTERS = REPOSITORY / "tests" / "models"
RECIPES = {
    "llama.cpp": ("Q8_0", "Q4_K_M"),
    "openvino": ("int8_asym", "int4_sym_g128"),
    "onnxruntime": ("int8_sym_b32", "int4_sym_b32"),
}
"""Of each engine 8 bits, and of 4 bits one of its smallest."""
QUERIES = {"embed": 40, "rerank": 16}
"""A reranker reads every document with its query and the whole prompt."""
DIMENSION = 64
LEAST_TOP1 = 0.9
LEAST_TOLD_APART = 0.9
CHANCE = 0.25
"""Of the first of four documents."""

Values = NDArray[np.float32]
"""Vectors (texts, hidden), or scores (texts)."""


def texts(own: retrieval.Conventions | None, row: Asked) -> list[str]:
    """What is read for a query: the query and its documents, or a prompt per document."""
    if own is None:
        return [retrieval.rerank_text(row.query, document) for document in row.documents]
    return [retrieval.query_text(own, row.query), *row.documents]


def read(checkpoint: Path, task: str) -> gate.Corpus:
    """The held-out queries as the gate reads its own."""
    source = Checkpoint.open(checkpoint)
    tokenizer = reference_tokenizer(source)
    own = retrieval.conventions(source) if task == "embed" else None
    rows = [texts(own, row) for row in held_out(QUERIES[task])]
    every = [text for row in rows for text in row]
    groups = np.arange(len(every)).reshape(len(rows), -1).tolist()
    ids = [tokenizer.encode(text, add_special_tokens=own is not None).ids for text in every]
    return gate.Corpus(task, tuple(map(tuple, ids)), tuple(map(tuple, groups)), tuple(every))


def by_reference(checkpoint: Path, asked: gate.Corpus) -> Values:
    """By the unquantized model."""
    source = Checkpoint.open(checkpoint)
    if asked.task == "embed":
        return pooled.vectors(source, asked.ids, Silent())
    answers = retrieval.answer_ids(reference_tokenizer(source), "tokenizer.json")
    return pooled.scores(source, asked.ids, answers, Silent())


def first(asked: gate.Corpus, values: Values) -> NDArray[np.int64]:
    """Of each query the number of the document that comes first; 0 is the one that answers."""
    return np.array([scores.argmax() for scores in asked.ranked(values)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, the embedder and the reranker."""
    home = tmp_path_factory.mktemp("trained")
    base = write_base(home / "base")
    for task in QUERIES:
        compose(home / task, base, [Adapter.open(ADAPTERS / f"tiny-qwen3-{task}")])
    return home


@pytest.fixture(scope="module")
def wanted(trained: Path) -> dict[str, tuple[gate.Corpus, Values]]:
    """By task the held-out queries, and what the unquantized model makes of them."""
    asked = {task: read(trained / task, task) for task in QUERIES}
    return {task: (rows, by_reference(trained / task, rows)) for task, rows in asked.items()}


def test_training_is_what_finds_the_document_that_answers(
    trained: Path, wanted: dict[str, tuple[gate.Corpus, Values]]
) -> None:
    languages = sorted(LANGUAGES)
    for task, (asked, values) in wanted.items():
        assert (first(asked, values) == 0).mean() >= LEAST_TOP1, task
        for number, language in enumerate(languages):
            found = first(asked, values)[number :: len(languages)]
            assert (found == 0).mean() > 3 * CHANCE, (task, language)
        untrained = by_reference(trained / "base", asked)
        assert (first(asked, untrained) == 0).mean() < 2 * CHANCE, task


def test_a_trained_reranker_says_yes_to_what_answers_and_no_to_what_does_not(
    wanted: dict[str, tuple[gate.Corpus, Values]],
) -> None:
    scores = np.array(list(wanted["rerank"][0].ranked(wanted["rerank"][1])))
    assert (scores[:, 0] > 0.5).mean() >= LEAST_TOLD_APART
    assert (scores[:, 1:] < 0.5).mean() >= LEAST_TOLD_APART


def computed(
    runtime: str, weights: str, asked: gate.Corpus, place: Path
) -> tuple[list[list[int]], Values]:
    """The artifact's own tokens, and what it makes of them."""
    make = resolve(registry.runtime(runtime).retrieval_session)  # type: ignore[attr-defined]
    session: Any = make(str(place), {"context": 512, "threads": 1, "task": asked.task})
    try:
        encode = session.encode if asked.task == "embed" else session.plain
        ids = [encode(text) for text in asked.texts]
        if asked.task == "embed":
            return ids, session.embed(ids)
        return ids, np.array(session.score(ids), np.float32)
    finally:
        session.close()


def losses(
    asked: gate.Corpus, found: Values, values: Values, grade: str | None
) -> Iterator[tuple[str, float | None, float]]:
    """Every limit of a class that is missed: its name, what was measured, the limit."""
    dimension = DIMENSION if asked.task == "embed" else None
    figures = RetrievalQuality.from_json(gate.figures(asked, found, values, dimension))
    limits = retrieval_limits.limits(grade)
    assert limits is not None, grade
    for row in retrieval_verdict.rows(asked.task, figures, limits):
        if not row.passed:
            yield row.rule, row.measured, row.limit


@pytest.mark.engine
@pytest.mark.parametrize("runtime", ["llama.cpp", thorough("openvino"), thorough("onnxruntime")])
def test_an_engine_finds_the_same_document_within_the_limits_of_8_and_of_4_bits(
    runtime: str,
    trained: Path,
    wanted: dict[str, tuple[gate.Corpus, Values]],
    tmp_path: Path,
) -> None:
    adapter = registry.runtime(runtime)
    arguments = {
        "runtime": runtime,
        "wanted": [
            [weights, task, str(trained / task), str(tmp_path / f"{weights}-{task}")]
            for weights in RECIPES[runtime]
            for task in QUERIES
        ],
    }
    finish(
        run_job(
            "tests.support.retrieval_jobs:build_all",
            arguments,
            tmp_path / "log",
            {"PYTHONPATH": str(REPOSITORY)},
        )
    )
    for weights in RECIPES[runtime]:
        grade = adapter.recipe(weights).grade
        for task, (asked, values) in wanted.items():
            ids, found = computed(runtime, weights, asked, tmp_path / f"{weights}-{task}")
            assert ids == [list(row) for row in asked.ids]
            assert list(losses(asked, found, values, grade)) == [], (weights, task)
            assert (first(asked, found) == 0).mean() >= LEAST_TOP1 - 0.1, (weights, task)
