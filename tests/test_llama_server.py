"""llama-server with the command that a package's README gives: the same greedy answer with a draft
model as without."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from targets.llama_cpp import LlamaCpp
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import build
from tests.support.rounding import differ_by_rounding

TOOLS = os.environ.get("QWEN_PACK_LLAMA_TOOLS")
PROGRAM = Path(TOOLS) / "llama-server" if TOOLS else None
MODELS = REPOSITORY / "tests" / "models"
TOKENS = 40
PATIENCE_S = 120

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        PROGRAM is None or not PROGRAM.is_file(),
        reason="QWEN_PACK_LLAMA_TOOLS names no folder with llama-server of llama.cpp",
    ),
]

WAYS: dict[str, dict[str, Any]] = {
    "draft": {"how": "draft", "drafted": 4, "draft": {"files": ["draft/model.gguf"]}},
    "lookup": {"how": "lookup", "drafted": 4, "ngram": 3},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    build(MODELS / "tiny-qwen3", folder / "model" / "model.gguf", "Q8_0")
    build(MODELS / "tiny-qwen3-draft", folder / "draft" / "model.gguf", "Q8_0")
    return folder


def command(speculation: dict[str, Any] | None) -> list[str]:
    """The line of the README that starts the server."""
    asked: dict[str, Any] = {"context": 512, "files": ["model/model.gguf"]}
    if speculation:
        asked["speculation"] = speculation
    text = LlamaCpp().how_to_run(LlamaCpp().recipe("Q8_0"), asked)
    line = next(line for line in text.splitlines() if line.startswith("llama-server "))
    return shlex.split(line)


@contextmanager
def running(words: list[str], folder: Path) -> Iterator[str]:
    """The server on a free port of this machine alone; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert PROGRAM is not None
    words = [str(PROGRAM), *words[1:], "--host", "127.0.0.1", "--threads", "1"]
    words[words.index("--port") + 1] = str(port)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + PATIENCE_S
            while True:
                assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < end, "it never answered"
                try:
                    with urllib.request.urlopen(f"{address}/health", timeout=5):
                        break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            server.kill()
            server.wait()


def answer(address: str, prompt: list[int]) -> dict[str, Any]:
    body = {
        "prompt": prompt,
        "n_predict": TOKENS,
        "temperature": 0,
        "return_tokens": True,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{address}/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def test_the_server_that_the_package_starts_says_the_same_with_drafts(package: Path) -> None:
    from targets.llama_cpp.session import Session

    session = Session(str(package / "model"), {"context": 512, "kv": "f16", "threads": 1})
    try:
        texts = ("def add(a, b):\n    return", '{"name": "Ada", "age": 36},\n' * 4)
        prompts = [session.encode(text) for text in texts]
        with running(command(None), package) as address:
            plain = [answer(address, prompt)["tokens"] for prompt in prompts]
        for name, way in WAYS.items():
            with running(command(way), package) as address:
                answers = [answer(address, prompt) for prompt in prompts]
            for prompt, alone, drafted in zip(prompts, plain, answers, strict=True):
                told = drafted["tokens"]
                assert len(told) == TOKENS
                assert told == alone or differ_by_rounding(session, prompt, alone, told), name
            # It did draft, and some of that was right.
            assert sum(one["timings"].get("draft_n", 0) for one in answers) > 0, name
            assert sum(one["timings"].get("draft_n_accepted", 0) for one in answers) > 0, name
    finally:
        session.close()
