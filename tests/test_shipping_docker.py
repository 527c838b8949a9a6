"""The runner that a container starts: it answers over HTTP with the package's own model, through
its engine."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import pytest

from packager.process import run_job
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import exported, finish, write
from training.questions import held_out

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
RECIPES = {"openvino": "int8_sym", "onnxruntime": "int8_sym_b32"}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=list(RECIPES))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where serve.py of an exported package answers."""
    engine = request.param
    place = tmp_path_factory.mktemp(engine)
    runtime = registry.runtime(engine)
    recipe = runtime.recipe(RECIPES[engine])
    arguments = {
        "checkpoint": str(TINY),
        "recipe": asdict(recipe),
        "workload": {"context": 512},
        "out": str(place / "artifact"),
    }
    finish(run_job(runtime.build_job, arguments, place / "log"))
    files = {f"model/{path.name}": path.read_bytes() for path in (place / "artifact").iterdir()}
    more = {
        "runtime": {"name": engine, "version": "1"},
        "recipe": {"id": recipe.id, **asdict(recipe)},
        "workload": {"context": 512},
    }
    out = exported(write(place / "package", files, more), "docker", place / "out")
    process = subprocess.Popen(
        [sys.executable, out / "serve.py", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/chat/completions", data), timeout=60
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_answers_questions_as_the_model_was_trained_to(server: str) -> None:
    sums = list(islice((task for task in held_out("serve", 400) if task.kind == "sum"), 4))
    assert sums
    for task in sums:
        code, answer = post(
            server, {"messages": [*task.messages], "temperature": 0, "max_tokens": 120}
        )
        assert code == 200
        (choice,) = answer["choices"]
        text = choice["message"]["content"].split("</think>\n\n")[-1]
        assert choice["finish_reason"] == "stop" and text.lstrip("-").isdigit(), text
        usage = answer["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] < 512


def test_an_answer_ends_where_it_was_told_to(server: str) -> None:
    code, answer = post(
        server,
        {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 2},
    )
    assert (code, answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (
        200,
        2,
        "length",
    )


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ({}, "no JSON"),
        ([1], "no JSON"),
        ({"messages": [{"role": "user"}]}, "no JSON"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}, "out of range"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": 1e9}, "out of range"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": True}, "stream"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "the context holds 512"),
    ],
    ids=range(10),
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    server: str, body: Any, word: str
) -> None:
    code, answer = post(server, body)
    assert code == 400 and word in answer["error"]["message"]


def test_it_says_that_it_is_well_and_what_it_serves_and_nothing_else(server: str) -> None:
    root = server.removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}
    with urllib.request.urlopen(f"{server}/models", timeout=10) as answer:
        assert [row["id"] for row in json.load(answer)["data"]] == ["tiny"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{root}/etc/passwd", timeout=10)
    connection = http.client.HTTPConnection(root.removeprefix("http://"), timeout=10)
    connection.request("POST", "/v1/chat/completions", headers={"Content-Length": str(1 << 40)})
    assert connection.getresponse().status == 413
    connection.close()
