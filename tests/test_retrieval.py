"""Embedders and rerankers: what a checkpoint makes of texts, and what an artifact makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.checkpoint import Checkpoint, retrieval
from packager.errors import ExitCode, PackError
from packager.reference import pooled
from targets.gguf import sizes
from targets.gguf.presets import preset_of
from tests.support.make_checkpoint import Silent
from tests.support.retrieval import built, edit, end_id, write_embedder, write_reranker

pytest_plugins = ("tests.support.fixtures.retrieval",)
TEXTS = ["hello", "what is a stone?", "ein langer Text " * 30, ""]
DOCUMENTS = ["granite", "water is wet", "x" * 300]


def opened(path: Path, context: int = 1024) -> Any:
    from targets.llama_cpp.retrieval import Session

    return Session(str(path), {"context": context, "threads": 1})


def answers(folder: Path) -> tuple[int, int]:
    from tokenizers import Tokenizer

    return retrieval.answer_ids(Tokenizer.from_file(str(folder / "tokenizer.json")), "x")


# ---- the yardstick


@pytest.mark.slow
def test_vectors_of_the_reference_are_those_of_transformers(embedder: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedder)
    model = transformers.AutoModel.from_pretrained(embedder, dtype=torch.float32)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert all(one[-1] == end_id(embedder) for one in ids)
    with torch.no_grad():
        rows = [model(torch.tensor([one])).last_hidden_state[0, -1] for one in ids]
    wanted = torch.nn.functional.normalize(torch.stack(rows), p=2, dim=1).numpy()
    mine = pooled.vectors(Checkpoint.open(embedder), ids, Silent())
    assert np.abs(mine - wanted).max() < 1e-4


def test_scores_of_the_reference_are_those_of_transformers(reranker: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(reranker)
    model = transformers.AutoModelForCausalLM.from_pretrained(reranker, dtype=torch.float32)
    ids = [tokenizer(retrieval.rerank_text("a", text))["input_ids"] for text in DOCUMENTS]
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in retrieval.ANSWERS)
    with torch.no_grad():
        last = torch.stack([model(torch.tensor([one])).logits[0, -1] for one in ids])
    wanted = torch.log_softmax(last[:, [no, yes]], dim=1)[:, 1].exp().numpy()
    mine = pooled.scores(Checkpoint.open(reranker), ids, (yes, no), Silent())
    assert np.abs(mine - wanted).max() < 1e-4


def test_fewer_numbers_of_a_vector_are_brought_to_length_one_again() -> None:
    rows = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]], np.float32)
    assert pooled.normalized(rows, 2).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert np.linalg.norm(pooled.normalized(rows)[0]) == pytest.approx(1)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40), st.integers(1, 50), st.booleans())
def test_a_text_that_is_cut_keeps_its_end(ids: list[int], limit: int, ends: bool) -> None:
    end = ids[-1] if ends else None
    short = retrieval.shortened(ids, limit, end)
    assert len(short) == min(len(ids), limit)
    assert short[:-1] == ids[: len(short) - 1]
    assert not ends or short[-1] == end


# ---- what a checkpoint says


def test_a_query_comes_with_the_checkpoints_own_instruction_or_with_the_users(
    embedder: Path,
) -> None:
    own = retrieval.conventions(Checkpoint.open(embedder))
    assert own.end == end_id(embedder)
    assert retrieval.query_text(own, "why?") == (f"Instruct: {retrieval.INSTRUCTION}\nQuery:why?")
    assert retrieval.query_text(own, "why?", "find") == "Instruct: find\nQuery:why?"


BREAKS: dict[str, Callable[[Path], None]] = {
    "pools by mean_tokens": lambda folder: edit(
        folder / "1_Pooling/config.json",
        pooling_mode_lasttoken=False,
        pooling_mode_mean_tokens=True,
    ),
    "of the type 'Dense'": lambda folder: (
        (folder / "modules.json").write_text(
            json.dumps([{"type": "sentence_transformers.models.Dense"}])
        )
        and None
    ),
    "lists no modules": lambda folder: (folder / "modules.json").write_text("[1]") and None,
    "leaves the prompt out": lambda folder: edit(
        folder / "1_Pooling/config.json", include_prompt=False
    ),
    "prompts.query is not text": lambda folder: edit(
        folder / "config_sentence_transformers.json", prompts={"query": 1}
    ),
    "tokens around a text": lambda folder: edit(
        folder / "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {
                "<|im_end|>": {"id": "<|im_end|>", "ids": [1], "tokens": ["<|im_end|>"]}
            },
        },
    ),
}


@pytest.mark.parametrize("sentence", BREAKS)
def test_conventions_that_are_not_built_are_refused(
    sentence: str, embedder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedder, tmp_path / "broken")
    BREAKS[sentence](folder)
    with pytest.raises(PackError, match=sentence) as raised:
        retrieval.conventions(Checkpoint.open(folder))
    assert raised.value.exit_code is ExitCode.INPUT


def test_an_embedder_may_lack_the_output_matrix_that_its_config_promises(
    embedder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedder, tmp_path / "headless")
    edit(folder / "config.json", tie_word_embeddings=False)
    opened = Checkpoint.open(folder)
    assert opened.shape.tied and opened.config["tie_word_embeddings"] and not opened.as_published
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(PackError, match=r"lm_head\.weight"):
        Checkpoint.open(folder)


def test_a_vocabulary_without_the_word_yes_makes_no_reranker(embedder: Path) -> None:
    with pytest.raises(PackError, match="'yes' is 2 tokens"):
        answers(embedder)


# ---- the artifact


@pytest.mark.engine
def test_a_gguf_gives_the_vectors_of_the_unquantized_model(
    embedder: Path, vectors_file: Path
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(embedder / "tokenizer.json"))
    session = opened(vectors_file)
    try:
        ids = [session.encode(text) for text in TEXTS]
        # Together and alone, and longer than what is computed at once.
        together, alone = session.embed(ids), [session.embed([one])[0] for one in ids]
        with pytest.raises(PackError, match="do not fit"):
            session.embed([[1] * 2000])
    finally:
        session.close()
    assert ids == [tokenizer.encode(text).ids for text in TEXTS]
    wanted = pooled.vectors(Checkpoint.open(embedder), ids, Silent())
    assert (together * wanted).sum(axis=1).min() > 0.9999
    assert np.abs(together - np.array(alone)).max() < 1e-3
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5


@pytest.mark.engine
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_gives_the_scores_of_the_unquantized_model(tied: bool, tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint", tied=tied)
    session = opened(built(folder, tmp_path / "model.gguf", "F16", "rerank"))
    try:
        ids = [session.plain(retrieval.rerank_text("a", text)) for text in DOCUMENTS]
        scores = session.score(ids)
    finally:
        session.close()
    wanted = pooled.scores(Checkpoint.open(folder), ids, answers(folder), Silent())
    assert np.abs(np.array(scores) - wanted).max() < 1e-3


@pytest.mark.engine
def test_the_post_processor_decides_what_is_appended_and_not_the_tokenizer_config(
    tmp_path: Path,
) -> None:
    folder = write_embedder(tmp_path / "checkpoint", appends=False)
    edit(folder / "tokenizer_config.json", add_eos_token=True)
    session = opened(built(folder, tmp_path / "model.gguf", "F16", "embed"))
    try:
        assert session.facts()["end"] is None
        assert session.encode("hello") == session.plain("hello")
    finally:
        session.close()


@pytest.mark.engine
@pytest.mark.parametrize("preset", ["F16", "Q4_K_M"])
@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_the_bytes_of_weights_are_known_before(
    preset: str, task: str, embedder: Path, reranker: Path, tmp_path: Path
) -> None:
    import gguf

    folder = embedder if task == "embed" else reranker
    path = built(folder, tmp_path / "model.gguf", preset, task)
    names = {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    assert "output.weight" not in names and ("cls.output.weight" in names) == (task == "rerank")
    shape = Checkpoint.open(folder).shape.for_task(task)
    planned = sizes.of(shape, preset_of(preset))
    data = path.stat().st_size - int(gguf.GGUFReader(path).data_offset)
    assert planned.data == data
