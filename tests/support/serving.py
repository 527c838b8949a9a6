"""Servers of packages as users start them, and OpenAI's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.support.building import words_of
from tests.support.shipping_packages import exported


def served(package: Path, cache: Path) -> Any:
    """Where `qwen-pack serve` answers."""
    words = [*words_of("packager.cli"), "serve", str(package), "--port", "0"]
    return answering(words, REPOSITORY, {"QWEN_PACK_CACHE": str(cache)})


def served_from_export(package: Path, out: Path) -> Any:
    """Where the serve.py of an export answers, which has no other code of qwen-pack than its
    own."""
    exported(package, "docker", out)
    return answering(["serve.py", "--port", "0"], out, {})


@contextmanager
def answering(words: list[str], folder: Path, more: dict[str, str]) -> Iterator[str]:
    """Where a server answers that Python is started with by these words in a folder, by the line
    that it prints first; it is ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **more},
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def client_of(address: str) -> Any:
    """OpenAI's client of a server."""
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "no text": lambda data: b"\xff\xfe" + data,
    "without its keys": lambda data: b"{}",
    "of wrong types": lambda data: json.dumps(dict.fromkeys(json.loads(data), "x")).encode(),
    "nested without end": lambda data: b"[" * 100_000,
}
"""What may become of a JSON file."""


@contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    """The file in one of these states, and as it was afterwards."""
    before = path.read_bytes()
    path.write_bytes(DAMAGE[kind](before))
    try:
        yield
    finally:
        path.write_bytes(before)


def refusal(folder: Path, *words: str) -> tuple[int, str]:
    """How serve.py of an export ends that does not start: its exit code, and what it says, which is
    one line."""
    run = subprocess.run(
        [sys.executable, "-E", "serve.py", "--port", "0", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in run.stderr and run.stdout == "", run
    (line,) = run.stderr.splitlines()[-1:]
    assert run.stderr.strip() == line
    return run.returncode, line


class Letters:
    """A model that says one text, a letter a token, and then ends its turn; it knows what it was
    asked."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def generate(
        self, ids: list[int], most: int, sampling: Any, schema: Any, on_token: Callable[[int], bool]
    ) -> None:
        self.asked.append((self.decode(ids), most, schema))
        for letter in self.replies.pop(0)[:most]:
            if not on_token(ord(letter)):
                return
