"""An embedder and a reranker that were trained: which document comes first means something, and stays
so in every engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from packager.checkpoint import Checkpoint, retrieval
from packager.checkpoint.adapter import Adapter
from packager.checkpoint.composed import compose
from packager.process import resolve, run_job
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.reference import pooled
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.shipping_packages import finish
from tests.support.tiers import thorough
from training.retrieval import Asked, held_out, write_base

ADAPTERS = REPOSITORY / "tests" / "models"
RECIPES = {"llama.cpp": "Q4_K_M", "openvino": "int4_sym_g128", "onnxruntime": "int4_sym_b32"}
"""Of each engine one of its smallest."""
QUERIES = {"embed": 40, "rerank": 16}
"""A reranker reads every document with its query and the whole prompt."""
LEAST_TOP1 = 0.9
LEAST_TOLD_APART = 0.9
CHANCE = 0.25
"""Of the first of four documents."""
LEAST_KEPT = 0.9


@dataclass(frozen=True)
class Ranked:
    """Of each query the scores of its documents, of which the first answers it; and the ids of every
    text that was read."""

    scores: NDArray[np.float32]
    ids: list[list[int]]

    @property
    def first(self) -> NDArray[np.int64]:
        """Of each query the number of the document that comes first."""
        return self.scores.argmax(axis=1)

    @property
    def top1(self) -> float:
        """How many queries have the document that answers them first."""
        return float((self.first == 0).mean())


def texts(own: retrieval.Conventions | None, row: Asked) -> list[str]:
    """What is read for a query: the query and its documents, or a prompt per document."""
    if own is None:
        return [retrieval.rerank_text(row.query, document) for document in row.documents]
    return [retrieval.query_text(own, row.query), *row.documents]


def given(source: Checkpoint, task: str) -> list[str]:
    """Every text of the held-out queries, one behind the other."""
    own = retrieval.conventions(source) if task == "embed" else None
    return [text for row in held_out(QUERIES[task]) for text in texts(own, row)]


def ranked(task: str, values: Any, ids: list[list[int]]) -> Ranked:
    """The scores of documents: cosines of vectors to that of their query, or the scores themselves."""
    rows = np.asarray(values).reshape(QUERIES[task], len(ids) // QUERIES[task], -1)
    scores = (rows[:, 1:] @ rows[:, 0, :, None])[..., 0] if task == "embed" else rows[..., 0]
    return Ranked(scores, ids)


def by_reference(checkpoint: Path, task: str) -> Ranked:
    """By the unquantized model."""
    source = Checkpoint.open(checkpoint)
    tokenizer = reference_tokenizer(source)
    special = task == "embed"
    ids = [tokenizer.encode(text, add_special_tokens=special).ids for text in given(source, task)]
    if task == "embed":
        return ranked(task, pooled.vectors(source, ids, Silent()), ids)
    answers = retrieval.answer_ids(tokenizer, "tokenizer.json")
    return ranked(task, pooled.scores(source, ids, answers, Silent()), ids)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, the embedder and the reranker."""
    home = tmp_path_factory.mktemp("trained")
    base = write_base(home / "base")
    for task in QUERIES:
        compose(home / task, base, [Adapter.open(ADAPTERS / f"tiny-qwen3-{task}")])
    return home


@pytest.fixture(scope="module")
def wanted(trained: Path) -> dict[str, Ranked]:
    return {task: by_reference(trained / task, task) for task in QUERIES}


def test_training_is_what_finds_the_document_that_answers(
    trained: Path, wanted: dict[str, Ranked]
) -> None:
    for task, found in wanted.items():
        assert found.top1 >= LEAST_TOP1, task
        assert by_reference(trained / "base", task).top1 < 2 * CHANCE, task


def test_a_trained_reranker_says_yes_to_what_answers_and_no_to_what_does_not(
    wanted: dict[str, Ranked],
) -> None:
    scores = wanted["rerank"].scores
    assert (scores[:, 0] > 0.5).mean() >= LEAST_TOLD_APART
    assert (scores[:, 1:] < 0.5).mean() >= LEAST_TOLD_APART


@pytest.mark.engine
@pytest.mark.parametrize("runtime", ["llama.cpp", "openvino", thorough("onnxruntime")])
def test_an_engine_finds_the_same_document(
    runtime: str, trained: Path, wanted: dict[str, Ranked], tmp_path: Path
) -> None:
    adapter = registry.runtime(runtime)
    arguments = {
        "runtime": runtime,
        "wanted": [
            [RECIPES[runtime], task, str(trained / task), str(tmp_path / task)] for task in QUERIES
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
    make = resolve(adapter.retrieval_session)  # type: ignore[attr-defined]
    for task, reference in wanted.items():
        session = make(str(tmp_path / task), {"context": 512, "threads": 1, "task": task})
        encode = session.encode if task == "embed" else session.plain
        ids = [encode(text) for text in given(Checkpoint.open(trained / task), task)]
        found = ranked(task, session.embed(ids) if task == "embed" else session.score(ids), ids)
        session.close()
        assert ids == reference.ids
        assert (found.first == reference.first).mean() >= LEAST_KEPT, task
        assert found.top1 >= LEAST_TOP1 - 0.1, task
