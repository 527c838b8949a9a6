"""An embedder that was trained: which document comes first means something, and stays so in every
engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from training.retrieval import held_out, write_base

ADAPTER = REPOSITORY / "tests" / "models" / "tiny-qwen3-embed"
RECIPES = {"llama.cpp": "Q4_K_M", "openvino": "int4_sym_g128", "onnxruntime": "int4_sym_b32"}
"""Of each engine one of its smallest."""
QUERIES = 40
LEAST_TOP1 = 0.9
LEAST_KEPT = 0.9


def texts(source: Checkpoint) -> tuple[list[str], list[slice]]:
    """Every query with its documents, one behind the other, and where each of them stands."""
    own = retrieval.conventions(source)
    given: list[str] = []
    places = []
    for row in held_out(QUERIES):
        start = len(given)
        given += [retrieval.query_text(own, row.query), *row.documents]
        places.append(slice(start, len(given)))
    return given, places


def first(rows: Any, places: list[slice]) -> list[int]:
    """Of each query the number of the document that comes first; 0 answers it."""
    return [int((rows[place][1:] @ rows[place][0]).argmax()) for place in places]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    base = write_base(home / "base")
    compose(home / "merged", base, [Adapter.open(ADAPTER)])
    return home


def reference(checkpoint: Path) -> tuple[list[int], list[list[int]]]:
    source = Checkpoint.open(checkpoint)
    given, places = texts(source)
    tokenizer = reference_tokenizer(source)
    ids = [tokenizer.encode(text).ids for text in given]
    return first(pooled.vectors(source, ids, Silent()), places), ids


@pytest.fixture(scope="module")
def wanted(trained: Path) -> tuple[list[int], list[list[int]]]:
    return reference(trained / "merged")


def test_training_is_what_finds_the_document_that_answers(
    trained: Path, wanted: tuple[list[int], list[list[int]]]
) -> None:
    untrained, _ = reference(trained / "base")
    assert np.mean([number == 0 for number in wanted[0]]) >= LEAST_TOP1
    # Four documents to choose from.
    assert np.mean([number == 0 for number in untrained]) < 0.7


@pytest.mark.engine
@pytest.mark.parametrize("runtime", RECIPES)
def test_an_engine_finds_the_same_document(
    runtime: str, trained: Path, wanted: tuple[list[int], list[list[int]]], tmp_path: Path
) -> None:
    source = Checkpoint.open(trained / "merged")
    adapter = registry.runtime(runtime)
    arguments = {
        "runtime": runtime,
        "wanted": [
            [RECIPES[runtime], "embed", str(trained / "merged"), str(tmp_path / "artifact")]
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
    session = make(str(tmp_path / "artifact"), {"context": 512, "threads": 1, "task": "embed"})
    given, places = texts(source)
    ids = [session.encode(text) for text in given]
    found = first(session.embed(ids), places)
    session.close()
    assert ids == wanted[1]
    same = np.mean([one == other for one, other in zip(found, wanted[0], strict=True)])
    assert same >= LEAST_KEPT
