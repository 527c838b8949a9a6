"""`qwen-pack` as a process of its own, for tests of builds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

FLAGS = ["--target", "laptop-cpu", "--recipe", "openvino:int8_asym", "--context", "256"]


TINY = [
    "--recipe",
    "gguf:Q8_0",
    "--context",
    "256",
    "--weights",
    str(REPOSITORY / "tests" / "models" / "tiny-qwen3"),
]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "QWEN_PACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def command(
    *arguments: str, cache: Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packager.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(cache),
        cwd=cwd,
        check=False,
    )
