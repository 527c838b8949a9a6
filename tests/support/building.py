"""`qwen-pack` as a process of its own, for tests of builds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packager import process
from tests.conftest import REPOSITORY
from tests.support.calm import calm
from tests.support.make_checkpoint import write_tiny

FLAGS = ["--target", "laptop-cpu", "--recipe", "openvino:int8_asym", "--context", "256"]


TINY = [
    "--recipe",
    "gguf:Q8_0",
    "--context",
    "256",
    "--weights",
    str(REPOSITORY / "tests" / "models" / "tiny-qwen3"),
]


def words_of(module: str) -> list[str]:
    """What follows Python's own path in the command line of a program of ours whose jobs are forked
    as those of this process are; see tests/support/warm_start.py."""
    warm = getattr(process._start, "__self__", None)
    if warm is not None and warm.on:
        return ["-m", "tests.support.warm_command", str(warm.folder), module]
    return ["-m", module]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "QWEN_PACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def within(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with the cache `cache` of the folder, started in the repository."""
    return command(*arguments, cache=folder / "cache", cwd=REPOSITORY)


def command(
    *arguments: str, cache: Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return program("packager.cli", arguments, environment(cache), cwd or Path.cwd())


def program(
    module: str, arguments: Sequence[str], env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """What `python -m MODULE ARGUMENTS` prints and how it ends: forked where that shows the same."""
    warm = getattr(process._start, "__self__", None)
    if warm is not None and (forked := warm.run(module, arguments, env, cwd)) is not None:
        return forked  # type: ignore[no-any-return]
    words = [sys.executable, *words_of(module), *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, check=False)


def tiny_openvino(folder: Path) -> None:
    """The checkpoint `tiny` of the folder, its `package` by FLAGS, and the `cache` that this left;
    for tests.support.once."""
    checkpoint = write_tiny(folder / "tiny")
    words = ["build", *FLAGS, "--weights", str(checkpoint), "--out", str(folder / "package")]
    run = command(*words, cache=folder / "cache")
    assert run.returncode == 0, run.stderr
    calm(folder / "cache")
