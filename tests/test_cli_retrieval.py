"""`build --use-case embed`, `embed`, `rerank`, and `fit` among embedders and rerankers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from tests.support.retrieval import write_embedder, write_reranker

NAMES = {"embed": "embedder", "rerank": "reranker"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("llama_cpp")
    folder = tmp_path_factory.mktemp("packages")
    sources = {
        "embed": write_embedder(folder / "tiny-embedder"),
        "rerank": write_reranker(folder / "tiny-reranker"),
    }
    found = {task: folder / task for task in sources}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("QWEN_PACK_CACHE", str(folder / "cache"))
        for task, source in sources.items():
            words = ["build", "--target", "cpu-gguf", "--use-case", task, "--recipe", "gguf:Q8_0"]
            words += ["--context", "512", "--weights", str(source), "--out", str(found[task])]
            words += ["--dimension", "64"] if task == "embed" else []
            assert main(words) == ExitCode.DONE
    return found


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == ExitCode.DONE
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.engine
def test_a_package_says_how_its_vectors_are_made_and_what_they_lost(
    packages: dict[str, Path],
) -> None:
    contents = manifest.read(packages["embed"]).contents
    own, quality, measured = contents.retrieval, contents.quality, contents.measured
    assert own is not None and quality is not None and measured is not None
    assert (own.task, own.pooling, own.normalized, own.dimension) == ("embed", "last", True, 64)
    assert quality.passed and quality.retrieval is not None
    assert [row.dimension for row in quality.retrieval.dimensions] == [256, 64]
    assert measured.documents_512_dps and measured.documents_128_dps and measured.query_ms
    assert measured.decode_tps is None and measured.task == "embed"
    readme = (packages["embed"] / "README.md").read_text("utf-8")
    assert "--embedding --pooling last" in readme and "[:64]" in readme and "tok/s of" not in readme
    assert not (packages["embed"] / "chat_template.jinja").exists()
    card = (packages["embed"] / "MODEL_CARD.md").read_text("utf-8")
    assert "feature-extraction" in card and "a vector of 64 numbers" in card
    prompt = manifest.read(packages["rerank"]).contents.retrieval
    assert prompt is not None and "{document}" in (prompt.prompt or "")
    assert "--reranking" in (packages["rerank"] / "README.md").read_text("utf-8")


@pytest.mark.engine
def test_embed_gives_vectors_of_length_one_with_as_many_numbers_as_are_kept(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("a stone\n\n" + "word " * 2000 + "\n", "utf-8")
    package = str(packages["embed"])
    found = asked(capsys, "embed", package, "hello", "--file", str(lines))
    rows = np.array(found["vectors"])
    assert rows.shape == (3, 64) and np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    assert found["cut"] == 1 and found["tokens"][2] == 512
    query = asked(capsys, "embed", package, "hello", "--query", "--dimension", "8")
    assert np.shape(query["vectors"]) == (1, 8)
    assert not np.allclose(query["vectors"][0], rows[0, :8] / np.linalg.norm(rows[0, :8]))


@pytest.mark.engine
def test_rerank_gives_documents_in_the_order_of_their_scores(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    documents = ["granite", "an egg", "word " * 2000]
    found = asked(capsys, "rerank", str(packages["rerank"]), "what is a stone?", *documents)
    scores = [row["score"] for row in found["results"]]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores)
    assert {row["index"] for row in found["results"]} == {0, 1, 2}
    assert found["cut"] == 1 and max(found["tokens"]) == 512


@pytest.mark.engine
def test_bench_measures_vectors_again(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = asked(capsys, "bench", str(packages["embed"]))["rows"]
    again = {row["figure"]: row["now"] for row in rows}
    assert again["documents_512_dps"] and again["query_ms"] and again["decode_tps"] is None


@pytest.mark.engine
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "embed", "hi"], "gives no text"),
        (["behave", "embed"], "gives no text"),
        (["rerank", "embed", "a", "b"], "not made for `rerank`"),
        (["embed", "rerank", "a"], "not made for `embed`"),
        (["embed", "embed"], "There is no text"),
        (["embed", "embed", "a", " "], "A text is empty"),
        (["rerank", "rerank", "", "a"], "The query is empty"),
        (["embed", "embed", "a", "--dimension", "999"], "fewer than 999"),
        (["rerank", "rerank", "a"], "There is no document"),
        (["embed", "embed", "--file", "nowhere.txt"], "cannot be read"),
    ],
)
def test_what_a_package_is_not_made_for_is_refused_with_a_way_on(
    words: list[str],
    sentence: str,
    packages: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, package, *rest = words
    assert main([command, str(packages[package]), *rest]) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err


@pytest.mark.engine
def test_exports_serve_vectors_and_scores(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    licence = ["--accept-license", "unstated"]
    for task, flag in (("embed", '"--embedding"'), ("rerank", '"--reranking"')):
        out = tmp_path / task
        words = ["export", str(packages[task]), "--format", "docker", "--out", str(out), *licence]
        assert main(words) == ExitCode.DONE
        dockerfile = (out / "Dockerfile").read_text("utf-8")
        assert flag in dockerfile and "--jinja" not in dockerfile and "--temp" not in dockerfile
    words = ["--format", "ollama", "--out", str(tmp_path / "ollama"), *licence]
    assert main(["export", str(packages["embed"]), *words]) == ExitCode.DONE
    assert "/api/embed" in (tmp_path / "ollama" / "README.md").read_text("utf-8")
    assert main(["export", str(packages["rerank"]), *words[:-1], "unstated"]) == ExitCode.USAGE
    assert "Ollama scores no documents" in capsys.readouterr().err


def fit(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["fit", "--target", "laptop-cpu", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_fit_chooses_the_smallest_embedder_and_reranker_that_reach_their_floors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, variant in (
        (["--use-case", "embed"], "Qwen/Qwen3-Embedding-0.6B"),
        (
            ["--use-case", "embed", "--min-score", "MTEB (Multilingual)=69"],
            "Qwen/Qwen3-Embedding-4B",
        ),
        (["--use-case", "embed", "--dimension", "2048"], "Qwen/Qwen3-Embedding-4B"),
        (["--use-case", "rerank"], "Qwen/Qwen3-Reranker-0.6B"),
        (["--model", "Qwen3-Reranker-4B"], "Qwen/Qwen3-Reranker-4B"),
        # A variant alone says what it is for, and its languages are those of its own scores.
        (
            ["--model", "Qwen3-Embedding-0.6B", "--dimension", "64", "--query-ms", "1000"],
            "Qwen/Qwen3-Embedding-0.6B",
        ),
        (["--use-case", "rerank", "--languages", "German,sw"], "Qwen/Qwen3-Reranker-0.6B"),
    ):
        code, found = fit(capsys, *words, "--max-ttft-ms", "100000")
        assert code == ExitCode.DONE and found["chosen"]["variant"] == variant, words
        # What the device prefers, as for text.
        assert found["chosen"]["recipe"].startswith("openvino:")

    for target, prefix in (("cpu-gguf", "gguf:"), ("android-onnx", "onnx:")):
        words = ["fit", "--target", target, "--use-case", "embed", "--json"]
        assert main(words) == ExitCode.DONE
        chosen = json.loads(capsys.readouterr().out)["chosen"]
        assert chosen["recipe"].startswith(prefix), target


def test_an_embedder_is_no_chat_model_even_when_it_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, found = fit(capsys, "--model", "Qwen3-Embedding-0.6B", "--use-case", "chat")
    assert code == ExitCode.NOTHING_FITS
    assert found["candidates"][0]["reasons"][0]["rule"] == "task"
    for words, sentence in (
        (["--dimension", "64"], "gives no vectors"),
        (["--documents-per-second", "1"], "gives no vectors or scores"),
        (["--use-case", "rerank", "--query-ms", "9"], "gives no vectors, so --query-ms"),
    ):
        assert main(["fit", "--target", "laptop-cpu", *words]) == ExitCode.USAGE
        assert sentence in capsys.readouterr().err


def test_a_rate_that_is_out_of_reach_comes_with_the_one_that_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, rule, flag in (
        (["--documents-per-second", "500"], "documents", "--documents-per-second 0."),
        (["--query-ms", "1"], "query", "--query-ms "),
    ):
        model = ["--model", "Qwen3-Embedding-0.6B"]
        code, found = fit(capsys, *model, *words)
        assert code == ExitCode.NOTHING_FITS
        assert {row["rule"] for row in found["candidates"][0]["reasons"]} == {rule}
        miss = found["nearest_misses"][0]
        assert miss["flag"].startswith((flag, "--target")), miss
        if miss["flag"].startswith("--target"):
            continue
        again, _ = fit(capsys, *model, *miss["flag"].split())
        assert again == ExitCode.DONE


@pytest.mark.engine
def test_packages_of_vectors_and_scores_can_be_rebuilt_byte_by_byte(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for task, package in packages.items():
        source = str(package.parent / f"tiny-{NAMES[task]}")
        answer = asked(capsys, "verify", str(package), "--rebuild", "--weights", source)
        assert answer["ok"] and answer["rebuilt"]["findings"] == [], answer


def test_fit_tells_the_time_of_a_vector_or_a_score_and_no_rate_of_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for task, words in (("embed", "gives the vector of "), ("rerank", "gives the score of ")):
        assert main(["fit", "--target", "laptop-cpu", "--use-case", task]) == ExitCode.DONE
        sentence = capsys.readouterr().out.splitlines()[0]
        assert words in sentence and " tokens after " in sentence
        assert "answers at" not in sentence and "first token" not in sentence
        assert main(["fit", "--target", "laptop-cpu", "--use-case", task]) == ExitCode.DONE
        columns = {"embed": ("texts/s", "query"), "rerank": ("pairs/s", "one pair")}[task]
        assert columns[0] in (table := capsys.readouterr().out) and columns[1] in table
