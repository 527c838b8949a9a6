"""The predicted memory is what a child process has resident once it has answered a full context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packager.process import run_job
from packager.shape import Shape
from targets.llama_cpp import LlamaCpp
from tests.support.gguf_checkpoints import build, checkpoint

pytestmark = pytest.mark.engine

WIDE = Shape("qwen3", 1024, 4, 8, 4, 128, 4096, 32768, True, False, True, 8192)
DEEP = Shape("qwen2", 512, 12, 8, 8, 64, 1408, 32768, True, True, False, 8192)


@pytest.mark.parametrize(
    ("shape", "weights", "kv", "context"),
    [
        (WIDE, "Q8_0", "f16", 512),
        (WIDE, "Q4_0", "f16", 2048),
        (DEEP, "Q4_K_M", "q8_0", 2048),
        (DEEP, "Q8_0", "f16", 1024),
    ],
)
def test_measured_and_predicted_memory_agree_within_five_per_cent(
    shape: Shape, weights: str, kv: str, context: int, tmp_path: Path
) -> None:
    runtime = LlamaCpp()
    build(checkpoint(tmp_path / "ck", shape), tmp_path / "out" / "model.gguf", weights)
    settings = {"context": context, "kv": kv, "threads": 1}
    arguments: dict[str, Any] = {
        "session": runtime.session,
        "artifact": str(tmp_path / "out"),
        "settings": settings,
    }
    work = run_job(
        "packager.measure.benchmark:measure",
        {**arguments, "prompt_tokens": context - 4, "new_tokens": 4, "repeats": 1},
        tmp_path / "measure.log",
    )
    while True:
        try:
            next(work)
        except StopIteration as stop:
            measured = stop.value.value
            break
    predicted = runtime.footprint(shape, runtime.recipe(weights, kv), context)
    assert predicted.peak == pytest.approx(measured["peak_memory_bytes"], rel=0.05)
