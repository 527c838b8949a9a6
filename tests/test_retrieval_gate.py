"""The gate of embedders and rerankers: faithful vectors and scores pass, damaged ones are
stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.pipeline import retrieval_stage
from packager.pipeline.cache import Entry
from packager.quality import retrieval as gate
from packager.quality import retrieval_corpus, retrieval_limits, retrieval_verdict
from packager.quality.verdict import check, refuse_incomplete, summary
from tests.support.make_checkpoint import Silent
from tests.support.retrieval import SHAPE, built

pytest_plugins = ("tests.support.fixtures.retrieval",)
SESSION = "targets.llama_cpp.retrieval:Session"
FACTS: dict[str, Any] = {
    "parity": {"texts": 1, "tokens": 1},
    "text": {"name": "corpus", "sha256": "0"},
    "compare_seconds": 1.0,
}


@pytest.fixture(scope="module")
def scores_file(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(reranker, tmp_path_factory.mktemp("gguf") / "model.gguf", "F16", "rerank")


def compared(
    file: Path, checkpoint: Path, task: str, tmp_path: Path, **more: Any
) -> dict[str, Any]:
    kept = tmp_path / "reference"
    if not kept.exists():
        gate.reference(Silent(), checkpoint=str(checkpoint), task=task, out=str(kept))  # type: ignore[arg-type]
    arguments = {"session": SESSION, "dimension": None, "reference": str(kept)} | more
    facts = gate.compare(
        Silent(),  # type: ignore[arg-type]
        artifact=str(file),
        settings={"threads": 1},
        checkpoint=str(checkpoint),
        task=task,
        **arguments,
    )
    refuse_incomplete(facts, True)
    return {**facts, "text": {"name": "corpus", "sha256": "0"}}


def judge(facts: dict[str, Any], task: str, grade: str = "16-bit", allow: bool = False) -> Any:
    return retrieval_verdict.judged(facts, task, grade, retrieval_limits.limits(grade), None, allow)


class Stretched:
    """The engine's session, with vectors that are twice as long."""

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        from targets.llama_cpp.retrieval import Session

        self._session = Session(artifact, settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def embed(self, batch: Any) -> Any:
        return 2 * self._session.embed(batch)


class Cutting(Stretched):
    """The engine's session, as one whose tokenizer loses the end of a text that it cuts."""

    def embed(self, batch: Any) -> Any:
        return self._session.embed(batch)

    def facts(self) -> Any:
        return {**self._session.facts(), "cut": 1}


def _set(path: Path, key: str, value: int) -> None:
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    field = reader.fields[key]
    field.parts[field.data[0]][0] = value
    del reader


def _swap(path: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    head = next(tensor for tensor in reader.tensors if tensor.name == "cls.output.weight")
    head.data[:] = head.data[::-1].copy()
    del reader


@pytest.mark.engine
def test_faithful_vectors_pass_and_damaged_ones_are_stopped(
    embedder: Path, vectors_file: Path, tmp_path: Path
) -> None:
    found = judge(compared(vectors_file, embedder, "embed", tmp_path, dimension=64), "embed")
    assert found.passed and not found.differences
    assert [row.dimension for row in found.retrieval.dimensions] == [256, 64]
    assert "mean cosine 1.0000" in summary(found)
    check(found)
    damages: dict[str, tuple[str, Any, str]] = {
        "pools by mean": ("qwen3.pooling_type", 1, SESSION),
        "one token less after": ("tokenizer.ggml.add_eos_token", False, SESSION),
        "has the length 2": ("", None, "tests.test_retrieval_gate:Stretched"),
        "cuts a long text": ("", None, "tests.test_retrieval_gate:Cutting"),
    }
    for sentence, (key, value, session) in damages.items():
        damaged = Path(shutil.copy(vectors_file, tmp_path / "damaged.gguf"))
        if key:
            _set(damaged, key, value)
        facts = compared(damaged, embedder, "embed", tmp_path, session=session)
        lost = judge(facts, "embed", "2-bit")
        assert any(sentence in text for text in lost.differences), lost.differences
        # What is cut elsewhere shows in no vector of the corpus.
        assert lost.verdicts[0].passed is session.endswith("Cutting"), sentence
        assert not lost.passed, sentence
        with pytest.raises(PackError) as raised:
            check(lost)
        assert raised.value.exit_code is ExitCode.BUDGET
        check(judge(facts, "embed", "2-bit", allow=True))


@pytest.mark.engine
def test_faithful_scores_pass_and_swapped_answers_are_stopped(
    reranker: Path, scores_file: Path, tmp_path: Path
) -> None:
    found = judge(compared(scores_file, reranker, "rerank", tmp_path), "rerank")
    assert found.passed and found.retrieval.score_max < 0.01
    check(found)
    damaged = Path(shutil.copy(scores_file, tmp_path / "damaged.gguf"))
    _swap(damaged)
    swapped = judge(compared(damaged, reranker, "rerank", tmp_path), "rerank")
    assert not swapped.passed
    with pytest.raises(PackError, match="mean difference of scores"):
        check(swapped)


def test_order_counts_where_the_unquantized_model_tells_documents_apart() -> None:
    read = gate.Corpus("rerank", ((1,),) * 3, ((0, 1, 2),))
    wanted = np.array([0.9, 0.5, 0.495], np.float32)
    same = gate.figures(read, np.array([0.8, 0.4, 0.41], np.float32), wanted)
    assert same["order_kept"] == 1 and same["top1_kept"] == 1
    near = np.array([0.9, 0.89, 0.1], np.float32)
    other = gate.figures(read, np.array([0.7, 0.8, 0.1], np.float32), near)
    assert other["order_kept"] == 1 and other["top1_kept"] == 1
    turned = gate.figures(read, np.array([0.3, 0.4, 0.41], np.float32), wanted)
    assert turned["order_kept"] == 0 and turned["top1_kept"] == 0
    broken = gate.figures(read, np.array([np.nan, 0.4, 0.41], np.float32), wanted)
    assert broken["broken"] == 1
    facts = {**FACTS, "retrieval": broken}
    with pytest.raises(PackError, match="are not numbers"):
        check(judge(facts, "rerank"))
    with pytest.raises(PackError, match="nothing is proved"):
        refuse_incomplete({**facts, "retrieval": None}, True)


def test_vectors_of_a_checkpoint_with_an_adapter_are_compared_with_their_own(
    tmp_path: Path,
) -> None:
    plan: Any = SimpleNamespace(shape=SHAPE.for_task("embed"))
    facts: dict[str, Any] = {"folder": ".", "files": [{"path": "x", "size": 1, "sha256": "0"}]}
    keys = set()
    for adapters in ([], [1.0], [2.0]):
        rows = [{"scale": scale, "folder": ".", "files": facts["files"]} for scale in adapters]
        fetched = Entry(tmp_path, facts | ({"adapters": rows} if rows else {}))
        keys.add(retrieval_stage.reference(plan, fetched).key)
    assert len(keys) == 3


def test_every_class_has_limits_and_stricter_ones_for_more_bits() -> None:
    from packager.quality.thresholds import grades

    assert retrieval_limits.grades() == grades()
    rows = [retrieval_limits.limits(grade) for grade in grades()]
    for name, worse in (
        ("cosine_mean", True),
        ("cosine_p5", True),
        ("cosine_min", True),
        ("order_kept", True),
        ("top1_kept", True),
        ("score_mean", False),
    ):
        values = [getattr(row, name) for row in rows]
        assert values == sorted(values, reverse=worse)
    assert all(row.cosine_min < row.cosine_p5 < row.cosine_mean for row in rows if row)


def test_every_rule_is_judged_at_the_dimension_that_loses_most_by_it() -> None:
    read = gate.Corpus("embed", ((1,),) * 4, ((0, 1), (2, 3)))
    wanted = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8], [0.6, 0.8, 0]], np.float32)
    found = gate.figures(read, wanted[:, [0, 2, 1]], wanted, dimension=2)
    rows = {row["dimension"]: row for row in found["dimensions"]}
    assert rows[3]["cosine_mean"] != rows[2]["cosine_mean"]
    for name in ("cosine_mean", "cosine_p5", "cosine_min", "order_kept", "top1_kept"):
        assert found[name] == min(row[name] for row in rows.values()), name
    names = [row.rule for row in judge({**FACTS, "retrieval": found}, "embed").verdicts]
    assert names == ["cosine_mean", "cosine_p5", "cosine_min", "order_kept", "top1_kept"]


@pytest.mark.parametrize(
    "text", ["not = [toml", "[classes.4-bit]\ncosine_mean = 0.9\n", "[other]\n"]
)
def test_limits_and_corpora_that_are_none_are_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    for read in (retrieval_limits.limits, lambda _, file: retrieval_corpus.queries(file)):
        with pytest.raises(PackError, match=r"own\.toml"):
            read("4-bit", path)


def test_the_corpus_has_several_languages_and_documents_of_every_query() -> None:
    rows = retrieval_corpus.queries()
    assert len({row.language for row in rows}) >= 5
    assert all(len(row.documents) >= 3 for row in rows)
    assert SHAPE.for_task("embed").task == "embed"
