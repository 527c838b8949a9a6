"""Embedders and rerankers in OpenVINO and ONNX Runtime: graphs without output matrix and cache, and
what the gate stops."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager import catalog
from packager.checkpoint import Checkpoint, retrieval
from packager.errors import ExitCode, PackError
from packager.files import tree_bytes
from packager.measure import batches
from packager.need.workload import workload_for
from packager.plan.adoption import adoptable, recognise, refuse_with_adopted
from packager.process import resolve, run_job
from packager.quality import retrieval as gate
from packager.quality import retrieval_limits, retrieval_verdict
from packager.quality.verdict import check
from packager.reference import pooled
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.retrieval import end_id, write_embedder, write_reranker
from tests.support.retrieval_damage import DAMAGES
from tests.support.shipping_packages import finish, opens
from tests.support.tiers import thorough

TEXTS = ["hello", "what is a stone?", "ein langer Text " * 30, ""]
DOCUMENTS = ["granite", "water is wet", "x" * 300]
RECIPES = {
    "openvino": ("bf16", "int8_asym", "int4_asym_g64", "q4_0"),
    "onnxruntime": ("fp32", "int8_sym_b32", "int4_k_quant_b32", "int4_sym_b32"),
}
"""Of each engine the highest precision, 8 bits, and 4 bits twice."""
GRADES = ("16-bit", "8-bit", "4-bit", "4-bit")


@dataclass(frozen=True)
class Built:
    """Artifacts of one engine, by recipe and task, and what they were made of."""

    engine: str
    folder: Path
    sources: dict[str, Path]

    def artifact(self, place: int, task: str) -> Path:
        return self.folder / f"{RECIPES[self.engine][place]}-{task}"

    def open(self, artifact: Path, context: int = 1024) -> Any:
        session = registry.runtime(self.engine).retrieval_session  # type: ignore[attr-defined]
        return resolve(session)(str(artifact), {"context": context, "threads": 1})


@pytest.fixture(scope="module", params=["openvino", thorough("onnxruntime")])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    engine = request.param
    for module in {"openvino": ("openvino_genai",), "onnxruntime": ("onnxruntime_genai", "torch")}[
        engine
    ]:
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp(engine)
    sources = {
        "embed": write_embedder(folder / "embedder"),
        # Its output matrix is none of what is built.
        "rerank": write_reranker(folder / "reranker", tied=False),
    }
    wanted = [
        [recipe, task, str(source), str(folder / f"{recipe}-{task}")]
        for recipe in RECIPES[engine]
        for task, source in sources.items()
        if task == "embed" or recipe in RECIPES[engine][::2]
    ]
    arguments = {"runtime": engine, "wanted": wanted}
    finish(
        run_job(
            "tests.support.retrieval_jobs:build_all",
            arguments,
            folder / "log",
            {"PYTHONPATH": str(REPOSITORY)},
        )
    )
    return Built(engine, folder, sources)


# ---- the artifact


@pytest.mark.engine
def test_vectors_are_those_of_the_unquantized_model_together_and_alone(built: Built) -> None:
    session = built.open(built.artifact(0, "embed"))
    try:
        ids = [session.encode(text) for text in TEXTS]
        together, alone = session.embed(ids), [session.embed([one])[0] for one in ids]
        with pytest.raises(PackError, match="do not fit"):
            session.embed([[1] * 2000])
        with pytest.raises(PackError, match=r"no scores|and not score"):
            session.score(ids)
    finally:
        session.close()
    source = Checkpoint.open(built.sources["embed"])
    tokenizer = gate.reference_tokenizer(source)
    assert ids == [tokenizer.encode(text).ids for text in TEXTS]
    assert all(one[-1] == end_id(built.sources["embed"]) for one in ids)
    wanted = pooled.vectors(source, ids, Silent())
    # An engine may compute in bfloat16 where the processor does.
    assert (together * wanted).sum(axis=1).min() > 0.999
    assert (together * np.array(alone)).sum(axis=1).min() > 0.9999
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-3


@pytest.mark.engine
def test_scores_are_those_of_the_unquantized_model(built: Built) -> None:
    session = built.open(built.artifact(0, "rerank"))
    try:
        ids = [session.plain(retrieval.rerank_text("a", text)) for text in DOCUMENTS]
        scores = session.score(ids)
        with pytest.raises(PackError, match=r"no vectors|and not sentence_embedding"):
            session.embed(ids)
    finally:
        session.close()
    source = Checkpoint.open(built.sources["rerank"])
    answers = retrieval.answer_ids(gate.reference_tokenizer(source), "x")
    wanted = pooled.scores(source, ids, answers, Silent())
    assert np.abs(np.array(scores) - wanted).max() < 5e-3


@pytest.mark.engine
def test_the_engines_own_pipelines_find_the_last_token_on_either_side(
    built: Built, tmp_path: Path
) -> None:
    if built.engine != "openvino":
        pytest.skip("ONNX Runtime has no pipelines for it: the graph does all")
    import openvino_genai

    session = built.open(built.artifact(0, "embed"))
    wanted = session.embed([session.encode(text) for text in TEXTS])
    short = retrieval.shortened(session.encode(TEXTS[2]), 16, end_id(built.sources["embed"]))
    cut = session.embed([short])[0]
    session.close()
    own = openvino_genai.TextEmbeddingPipeline
    for side in (None, "left", "right"):
        config = own.Config()
        config.pooling_type, config.normalize = own.PoolingType.LAST_TOKEN, True
        if side is not None:
            config.padding_side = side
        found = np.array(own(built.artifact(0, "embed"), "CPU", config).embed_documents(TEXTS))
        assert (found * wanted).sum(axis=1).min() > 0.9999, side
    config.max_length = 16
    found = np.array(own(built.artifact(0, "embed"), "CPU", config).embed_documents(TEXTS))
    assert found[2] @ cut > 0.9999
    session = built.open(built.artifact(0, "rerank"))
    prompts = [retrieval.rerank_text("a", text) for text in DOCUMENTS]
    scores = session.score([session.plain(text) for text in prompts])
    session.close()
    head, tail = retrieval.rerank_text("a", "\0").split("\0")
    pipeline = openvino_genai.TextRerankPipeline(built.artifact(0, "rerank"), "CPU", top_n=3)
    ranked = dict(pipeline.rerank(head, [text + tail for text in DOCUMENTS]))
    assert [ranked[number] for number in range(3)] == pytest.approx(scores, abs=2e-3)


@pytest.mark.engine
def test_the_tokenizers_mask_is_one_for_tokens_and_zero_for_padding(
    built: Built, tmp_path: Path
) -> None:
    if built.engine != "openvino":
        pytest.skip("the mask of ONNX Runtime is that of tokenizers")
    import openvino_genai

    from targets.openvino.tokenizer import write_tokenizer

    write_tokenizer(Checkpoint.open(built.sources["embed"]), tmp_path)
    for folder in (tmp_path, built.artifact(0, "embed"), built.artifact(0, "rerank")):
        found = openvino_genai.Tokenizer(folder).encode(["a", "a longer text"])
        ids, mask = found.input_ids.data, found.attention_mask.data
        assert ids.shape == mask.shape and mask[1].all()
        assert mask[0].sum() == len(openvino_genai.Tokenizer(folder).encode("a").input_ids.data[0])


def test_footprints_are_those_that_were_measured() -> None:
    shape = catalog.find("Qwen/Qwen3-Embedding-0.6B").shape
    assert shape is not None
    # Peak of the benchmarks at a context of 2048, and bytes of the files: docs/retrieval.md. The last
    # two are of the reranker, which has the same network.
    for engine, weights, peak, size in (
        ("openvino", "int8_asym", 1_374_408_704, 607_732_863),
        ("openvino", "int4_sym_g128", 960_262_144, 393_304_066),
        ("onnxruntime", "int8_sym_b32", 1_323_401_216, 692_390_612),
        ("onnxruntime", "int4_sym_b32", 1_095_495_680, 394_534_451),
        ("onnxruntime", "int4_asym_b32_head8", 1_121_226_752, 483_952_882),
        # Its embedding stays in the file, but for what a text touches of it.
        ("onnxruntime", "fp32", 2_499_579_904, 2_405_023_155),
    ):
        adapter = registry.runtime(engine)
        recipe, own = adapter.recipe(weights), shape.for_task("embed")
        assert adapter.footprint(own, recipe, 2048).peak == pytest.approx(peak, rel=0.05)
        assert adapter.artifact_bytes(own, recipe) == pytest.approx(size, rel=0.002)
        # Nothing is kept for tokens that were read before.
        assert adapter.footprint(own, recipe, 2048).kv_cache == 0


@pytest.mark.engine
def test_every_recipe_is_as_large_as_planned_and_safe_to_open(built: Built, tmp_path: Path) -> None:
    adapter = registry.runtime(built.engine)
    weights = {"openvino": "openvino_model.bin", "onnxruntime": "model.onnx.data"}[built.engine]
    for place, name in enumerate(RECIPES[built.engine]):
        for task, source in built.sources.items():
            artifact = built.artifact(place, task)
            if not artifact.is_dir():
                continue
            assert opens(artifact, built.engine, tmp_path / f"{name}-{task}"), name
            shape = Checkpoint.open(source).shape.for_task(task)
            recipe = adapter.recipe(name)
            assert adapter.obstacle(shape, recipe) is None
            stored = (artifact / weights).stat().st_size
            assert stored == pytest.approx(_planned(built.engine, shape, recipe), abs=4096), name
            whole = adapter.artifact_bytes(shape, recipe)
            # What stands around the weights is a quarter of so small a model.
            assert whole == pytest.approx(tree_bytes(artifact), rel=0.1), name


def _planned(engine: str, shape: Any, recipe: Any) -> int:
    if engine == "openvino":
        from targets.openvino import data, sizes

        return sizes.totals(shape, data.compression_of(recipe)).stored
    from targets.onnxruntime import data as onnx_data
    from targets.onnxruntime import sizes as onnx_sizes

    return onnx_sizes.weight_bytes(shape, onnx_data.settings_of(recipe))


@pytest.mark.engine
def test_an_openvino_folder_follows_from_its_checkpoint_and_is_no_text_generator(
    built: Built, tmp_path: Path
) -> None:
    if built.engine != "openvino":
        pytest.skip("a folder for ONNX Runtime without genai_config.json is not recognised")
    places = [built.artifact(1, "embed"), built.artifact(2, "rerank"), built.artifact(0, "rerank")]
    for task, folders in (("embed", places[:1]), ("rerank", places[1:])):
        arguments = {
            "engine": "openvino",
            "folders": [str(folder) for folder in folders],
            "checkpoint": str(built.sources[task]),
            "out": str(tmp_path / task),
        }
        job = "tests.support.attest_jobs:attest_all"
        work = run_job(job, arguments, tmp_path / "log", {"PYTHONPATH": str(REPOSITORY)})
        for folder, row in zip(folders, finish(work).value["rows"], strict=True):
            assert (row.get("follows"), row.get("different")) == ("exactly", []), (folder, row)
            assert row["recipe"] == f"openvino:{folder.name.removesuffix(f'-{task}')}"
    model = adoptable(str(places[1]), registry.runtimes())
    assert model is not None
    # Whether the checkpoint has an output matrix, nothing of the folder tells.
    assert recognise(model, against=str(built.sources["rerank"])).model.shape.tied is False
    with pytest.raises(PackError, match="makes vectors or scores") as raised:
        refuse_with_adopted(model, workload_for("embed"), None, (), None)
    assert raised.value.exit_code is ExitCode.USAGE


# ---- the gate


@pytest.fixture(scope="module")
def references(built: Built) -> dict[str, Path]:
    """What the unquantized checkpoints make of the corpus."""
    kept = {task: built.folder / f"reference-{task}" for task in built.sources}
    for task, out in kept.items():
        source = str(built.sources[task])
        gate.reference(Silent(), checkpoint=source, task=task, out=str(out))  # type: ignore[arg-type]
    return kept


def judged(built: Built, references: dict[str, Path], artifact: Path, task: str, grade: str) -> Any:
    facts = gate.compare(
        Silent(),  # type: ignore[arg-type]
        session=registry.runtime(built.engine).retrieval_session,  # type: ignore[attr-defined]
        artifact=str(artifact),
        settings={"threads": 1},
        checkpoint=str(built.sources[task]),
        task=task,
        dimension=64 if task == "embed" else None,
        reference=str(references[task]),
    )
    facts = {**facts, "text": {"name": "corpus", "sha256": "0"}}
    limits = retrieval_limits.limits(grade)
    return retrieval_verdict.judged(facts, task, grade, limits, None, False)


@pytest.mark.engine
def test_what_is_built_passes_the_limits_of_its_class(
    built: Built, references: dict[str, Path]
) -> None:
    for place, task in ((0, "embed"), (1, "embed"), (2, "embed"), (0, "rerank"), (2, "rerank")):
        found = judged(built, references, built.artifact(place, task), task, GRADES[place])
        assert not found.differences, (place, task, found)
        if (task, GRADES[place]) == ("embed", "4-bit"):
            # Random weights have no documents that belong to a query: 4 bits turn such orders.
            ranks = ("order_kept", "top1_kept")
            assert all(row.passed for row in found.verdicts if row.rule not in ranks), found
            continue
        assert found.passed, (place, task, found)
        check(found)


@pytest.mark.engine
@pytest.mark.parametrize("damage", ["pooling", "end", "length", "padding", "answers"])
def test_damage_is_stopped(
    damage: str, built: Built, references: dict[str, Path], tmp_path: Path
) -> None:
    task, break_it, sentence = DAMAGES[built.engine][damage]
    damaged = shutil.copytree(built.artifact(0, task), tmp_path / "damaged")
    break_it(damaged, built.sources[task])
    lost = judged(built, references, damaged, task, "16-bit")
    failed = [row.rule for row in lost.verdicts if not row.passed]
    assert any(sentence in text for text in (*lost.differences, *failed)), (lost, failed)
    with pytest.raises(PackError) as raised:
        check(lost)
    assert raised.value.exit_code is ExitCode.BUDGET


@pytest.mark.engine
def test_an_artifact_that_does_not_say_how_it_is_run_is_refused(
    built: Built, tmp_path: Path
) -> None:
    damaged = shutil.copytree(built.artifact(0, "embed"), tmp_path / "damaged")
    for text in ("", "[]", json.dumps({"pooling": "cls"}), json.dumps({"pooling": 3}), None):
        path = damaged / "retrieval.json"
        path.unlink() if text is None else path.write_text(text, "utf-8")
        with pytest.raises(PackError, match=r"retrieval\.json") as raised:
            built.open(damaged)
        assert raised.value.exit_code is ExitCode.INPUT


# ---- texts side by side


def test_texts_of_like_length_are_computed_together_and_none_is_lost() -> None:
    texts = [[1] * size for size in (300, 5, 700, 6, 250, 1)]
    groups = list(batches.groups(texts, 512))
    assert sorted(number for group in groups for number in group) == list(range(6))
    for group in groups:
        longest = max(len(texts[number]) for number in group)
        assert longest * len(group) <= 512 or len(group) == 1
    # So 32 documents that are handed over together are computed as eight are.
    for tokens, together in ((128, 4), (512, 1), (2048, 1)):
        for handed in (8, 32):
            sizes = [len(group) for group in batches.groups([[1] * tokens] * handed, 512)]
            assert sizes == [together] * (handed // together)
    ids, mask = batches.side_by_side([[7, 8], [9]])
    assert ids.tolist() == [[7, 8], [9, 0]] and mask.tolist() == [[1, 1], [1, 0]]
