"""Packages of embedders and rerankers for OpenVINO and ONNX Runtime in use: by the command line, by the README's own program, and by `serve.py` over OpenAI's protocol."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.shipping.server import retrieval as served
from packager.shipping.server.answers import Gone
from packager.shipping.server.refused import Refused
from packager.shipping.server.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.building import words_of
from tests.support.retrieval import write_embedder, write_reranker
from tests.support.serving import answering, damaged, refusal
from tests.support.shipping_packages import exported

BUILDS = {"embed": ("openvino", "openvino:int8_asym"), "rerank": ("onnxruntime", "onnx:fp32")}
TEXTS = ["a stone", "what is a stone? " * 4]
DOCUMENTS = ["granite", "an egg", "water is wet"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task, each of another engine."""
    pytest.importorskip("openvino_genai")
    pytest.importorskip("onnxruntime_genai")
    folder = tmp_path_factory.mktemp("served")
    sources = {
        "embed": write_embedder(folder / "tiny-embedder"),
        "rerank": write_reranker(folder / "tiny-reranker"),
    }
    found = {task: folder / task for task in sources}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("QWEN_PACK_CACHE", str(folder / "cache"))
        for task, source in sources.items():
            words = ["build", "--target", "laptop-cpu", "--use-case", task, "--context", "512"]
            words += ["--recipe", BUILDS[task][1], "--weights", str(source)]
            words += ["--out", str(found[task]), *(["--dimension", "64"] * (task == "embed"))]
            assert main(words) == ExitCode.DONE
    return found


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == ExitCode.DONE
    return json.loads(capsys.readouterr().out)


@pytest.mark.engine
def test_a_package_says_what_its_vectors_lost_and_where_they_were_measured(
    packages: dict[str, Path],
) -> None:
    for task, package in packages.items():
        contents = manifest.read(package).contents
        quality, measured = contents.quality, contents.measured
        assert contents.task == task and contents.runtime.name == BUILDS[task][0]
        assert quality is not None and quality.passed and quality.retrieval is not None
        assert measured is not None and measured.documents_512_dps and measured.query_ms
        assert not (package / "model" / "genai_config.json").exists()
        assert main(["verify", str(package)]) == ExitCode.DONE


@pytest.mark.engine
@pytest.mark.parametrize("task", list(BUILDS))
def test_the_readmes_own_program_gives_what_the_command_line_gives(
    task: str, packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages[task]
    readme = (package / "README.md").read_text("utf-8")
    program = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert program is not None
    ran = subprocess.run(
        [sys.executable, "-c", program[1]],
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", ran.stdout)]
    query, texts = "how long to boil an egg", ["The shop sells eggs."]
    if task == "embed":
        texts = ["Hard eggs take nine minutes.", *texts]
        rows = np.array(asked(capsys, "embed", str(package), *texts)["vectors"])
        (ask,) = asked(capsys, "embed", str(package), query, "--query")["vectors"]
        wanted = list(rows @ np.array(ask))
    else:
        results = asked(capsys, "rerank", str(package), query, "Nine minutes.", *texts)["results"]
        wanted = [row["score"] for row in sorted(results, key=lambda row: row["index"])]
    assert numbers == pytest.approx(wanted, abs=2e-3)


@contextlib.contextmanager
def serving(package: Path, out: Path) -> Iterator[str]:
    """Where serve.py of a package answers."""
    words = ["export", str(package), "--format", "docker", "--out", str(out)]
    assert main([*words, "--accept-license", "unstated"]) == ExitCode.DONE
    with answering(["serve.py", "--port", "0"], out, {}) as address:
        yield address


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.engine
@pytest.mark.parametrize("task", list(BUILDS))
def test_a_server_of_a_damaged_package_ends_with_a_sentence(
    task: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    name = {"embed": "config.json", "rerank": "tokenizer.json"}[task]
    out = exported(packages[task], "docker", tmp_path / "out")
    for kind in ("cut off", "of wrong types"):
        with damaged(out / "package" / "model" / name, kind):
            code, said = refusal(out)
        assert code == ExitCode.INPUT and f"{BUILDS[task][0]} does not open" in said, kind


@pytest.mark.engine
def test_openais_client_gets_the_packages_vectors(
    packages: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openai = pytest.importorskip("openai")
    package = packages["embed"]
    wanted = np.array(asked(capsys, "embed", str(package), *TEXTS)["vectors"])
    with serving(package, tmp_path / "out") as place:
        with openai.OpenAI(base_url=place, api_key="none", max_retries=0, timeout=60) as client:
            found = client.embeddings.create(input=TEXTS, model="any")
            plain = client.embeddings.create(input=TEXTS[0], model="any", encoding_format="float")
            few = client.embeddings.create(input=TEXTS, model="any", dimensions=8)
        rows = np.array([row.embedding for row in found.data])
        assert rows.shape == (2, 64) and (rows * wanted).sum(axis=1).min() > 0.999
        assert np.array(plain.data[0].embedding) @ rows[0] > 0.999
        assert np.shape([row.embedding for row in few.data]) == (2, 8)
        assert found.usage.prompt_tokens == found.usage.total_tokens > 20
        for body, sentence in (
            ({"input": []}, "`input`"),
            ({"input": [1, 2]}, "`input`"),
            ({"input": "a", "dimensions": 257}, "1 to 256"),
            ({"input": "a", "encoding_format": "int8"}, "`encoding_format`"),
            ({"input": "word " * 600}, "the context holds 512"),
        ):
            code, answer = post(f"{place}/embeddings", body)
            assert code == 400 and sentence in answer["error"]["message"], body
        assert post(f"{place}/rerank", {})[0] == post(f"{place}/chat/completions", {})[0] == 404


@pytest.mark.engine
def test_documents_are_ranked_over_http(
    packages: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages["rerank"]
    wanted = asked(capsys, "rerank", str(package), "what is a stone?", *DOCUMENTS)["results"]
    asking = {"query": "what is a stone?", "documents": DOCUMENTS}
    with serving(package, tmp_path / "out") as place:
        code, answer = post(f"{place}/rerank", asking)
        assert code == 200 and answer["usage"]["total_tokens"] > 100
        assert [row["index"] for row in answer["results"]] == [row["index"] for row in wanted]
        scores = [row["relevance_score"] for row in answer["results"]]
        assert scores == pytest.approx([row["score"] for row in wanted], abs=1e-3)
        best = post(f"{place}/rerank", {**asking, "top_n": 1})[1]["results"]
        assert best == answer["results"][:1]
        other = post(f"{place}/rerank", {**asking, "instruction": "Find eggs"})[1]["results"]
        assert [row["relevance_score"] for row in other] != scores
        for body, sentence in (
            ({"documents": ["a"]}, "`query`"),
            ({"query": "a", "documents": []}, "`documents`"),
            ({"query": "a", "documents": [3]}, "`documents`"),
            ({**asking, "top_n": 0}, "`top_n`"),
            ({"query": "a", "documents": ["word " * 600]}, "the context holds 512"),
        ):
            code, answer = post(f"{place}/rerank", body)
            assert code == 400 and sentence in answer["error"]["message"], body


def test_exports_take_no_code_of_the_other_task(packages: dict[str, Path], tmp_path: Path) -> None:
    for task, package in packages.items():
        out = tmp_path / task
        words = ["export", str(package), "--format", "docker", "--out", str(out)]
        assert main([*words, "--accept-license", "unstated"]) == ExitCode.DONE
        names = {path.name for path in (out / "server").rglob("*.py")}
        assert f"vectors_{BUILDS[task][0]}.py" in names
        assert not any(name.startswith("engine_") for name in names)
        readme = (out / "README.md").read_text("utf-8")
        assert served.PATHS[task] in readme and "jinja2" not in readme.casefold()


@pytest.mark.engine
def test_apps_are_told_how_vectors_and_scores_are_made(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    sources = {"android": "*.kt", "embedded": "*.h"}
    for task, package in packages.items():
        for form, pattern in sources.items():
            out = tmp_path / f"{task}-{form}"
            words = ["export", str(package), "--format", form, "--out", str(out)]
            assert main([*words, "--accept-license", "unstated"]) == ExitCode.DONE
            text = "".join(path.read_text("utf-8") for path in out.rglob(pattern))
            (line,) = [line for line in text.splitlines() if "RETRIEVAL" in line]
            assert (
                task in line and "Instruct" in line and ("Document" in line) == (task == "rerank")
            )


@pytest.mark.engine
def test_the_search_of_the_docs_finds_and_ranks_passages(
    packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlite_vec")
    pytest.importorskip("apsw")
    page = (REPOSITORY / "docs" / "retrieval.md").read_text("utf-8")
    program = re.search(r"```python\n(import json.*?)```", page, re.DOTALL)
    assert program is not None
    for name, task in (("embedder", "embed"), ("reranker", "rerank")):
        (tmp_path / name).symlink_to(packages[task], target_is_directory=True)
    starter = tmp_path / "bin" / "qwen-pack"
    starter.parent.mkdir()
    program_words = shlex.join([sys.executable, *words_of("packager.cli")])
    starter.write_text(f'#!/bin/sh\nexec {program_words} "$@"\n')
    starter.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{starter.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    ran = subprocess.run(
        [sys.executable, "-c", program[1]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    scores = [float(line.split()[0]) for line in lines]
    assert len(lines) == 3 and scores == sorted(scores, reverse=True)
    assert len({line[7:] for line in lines}) == 3


# ---- without an engine

KNOWN = Settings(
    *("tiny", "openvino", Path(), "", 64, "u8", "CPU", frozenset(), (), {}, None),
    task="rerank",
    hidden=4,
    prompt="<I> find <Q> {query} <D> {document} <end>",
    instruction="find",
)


class Words:
    """A tokenizer of words; of a document the score is how many words it shares with the query."""

    def count(self, text: str) -> int:
        return len(text.split())

    def vectors(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0, 0.0, 0.0] for text in texts]

    def scores(self, query: str, documents: list[str]) -> list[float]:
        return [len(set(query.split()) & set(text.split())) / 100 for text in documents]


def test_what_a_query_says_is_no_place_for_another_text() -> None:
    body = json.dumps({"query": "{document} {query} stone", "documents": ["a stone {query}", "b"]})
    answer = served.answer(Words(), KNOWN, body.encode())(lambda: False)
    assert [row["index"] for row in answer["results"]] == [0, 1]
    assert answer["results"][0]["relevance_score"] == 0.02


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_texts_of_a_client_that_leaves_are_computed_no_further(task: str) -> None:
    texts = ["a b c " * 15] * 40
    computed: list[int] = []

    class Counts(Words):
        def vectors(self, texts: list[str]) -> list[list[float]]:
            computed.append(len(texts))
            return super().vectors(texts)

        def scores(self, query: str, documents: list[str]) -> list[float]:
            computed.append(len(documents))
            return super().scores(query, documents)

    body = json.dumps({"input": texts, "query": "a", "documents": texts}).encode()
    compute = served.answer(Counts(), Settings(**{**_fields(KNOWN), "task": task}), body)
    with pytest.raises(Gone):
        compute(lambda: len(computed) >= 2)
    assert len(computed) == 2 and sum(computed) < len(texts)


@given(st.binary(max_size=60) | st.dictionaries(st.text(max_size=9), st.integers()).map(json.dumps))
def test_a_request_that_makes_no_sense_is_refused_by_a_sentence(body: bytes | str) -> None:
    data = body.encode() if isinstance(body, str) else body
    for settings in (KNOWN, Settings(**{**_fields(KNOWN), "task": "embed"})):
        with pytest.raises(Refused):
            served.answer(Words(), settings, data)


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


@given(st.lists(st.integers(1, 900), max_size=30))
def test_texts_of_a_request_are_computed_in_groups_of_bounded_size(sizes: list[int]) -> None:
    groups = served.groups(sizes)
    assert sorted(number for group in groups for number in group) == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or max(sizes[number] for number in group) * len(group) <= served.ROOM


def test_a_shortened_vector_has_length_one_again() -> None:
    assert served.shortened([3.0, 4.0, 12.0], 2) == [0.6, 0.8]
    assert served.shortened([0.0, 0.0, 1.0], 2) == [0.0, 0.0]
