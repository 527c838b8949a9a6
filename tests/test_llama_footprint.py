"""The predicted memory is what a child process has resident once it has answered a full context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packager.process import run_job
from packager.shape import Shape
from targets.llama_cpp import LlamaCpp
from targets.llama_cpp.memory import constants
from tests.support.gguf_checkpoints import build, checkpoint
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

WIDE = Shape("qwen3", 1024, 4, 8, 4, 128, 4096, 32768, True, False, True, 8192)
DEEP = Shape("qwen2", 512, 12, 8, 8, 64, 1408, 32768, True, True, False, 8192)


NEXT_TO_NOTHING = Shape("qwen3", 64, 1, 1, 1, 64, 64, 32768, True, False, True, 8192)


def predicted(shape: Shape, weights: str, kv: str, context: int) -> int:
    runtime = LlamaCpp()
    return runtime.footprint(shape, runtime.recipe(weights, kv), context).peak


def measured(shape: Shape, weights: str, kv: str, context: int, folder: Path) -> int:
    """The most memory of a process that answers a full context."""
    build(checkpoint(folder / "ck", shape), folder / "out" / "model.gguf", weights)
    arguments: dict[str, Any] = {
        "session": LlamaCpp().session,
        "artifact": str(folder / "out"),
        "settings": {"context": context, "kv": kv, "threads": 1},
    }
    work = run_job(
        "packager.measure.benchmark:measure",
        {**arguments, "prompt_tokens": context - 4, "new_tokens": 4, "repeats": 1},
        folder / "measure.log",
    )
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return int(stop.value.value["peak_memory_bytes"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What the interpreter and the libraries take here beyond what they took where the forecast's
    constants are from: each build of Python, NumPy and llama.cpp has its own size."""
    model = (NEXT_TO_NOTHING, "Q8_0", "f16", 64)
    return measured(*model, tmp_path_factory.mktemp("base")) - predicted(*model)


@pytest.mark.parametrize(
    ("shape", "weights", "kv", "context"),
    [
        thorough(WIDE, "Q8_0", "f16", 512),
        thorough(WIDE, "Q4_0", "f16", 2048),
        thorough(DEEP, "Q4_K_M", "q8_0", 2048),
        (DEEP, "Q8_0", "f16", 1024),
    ],
)
def test_measured_and_predicted_memory_agree_within_five_per_cent(
    shape: Shape, weights: str, kv: str, context: int, base: float, tmp_path: Path
) -> None:
    taken = measured(shape, weights, kv, context, tmp_path)
    assert predicted(shape, weights, kv, context) + base == pytest.approx(taken, rel=0.05)


def test_the_process_itself_takes_about_as_much_as_the_forecast_says(base: float) -> None:
    """Half or twice as much: a machine with other libraries is no reason to fail."""
    own = constants().overhead["engine_bytes"]
    assert -own / 2 < base < own
