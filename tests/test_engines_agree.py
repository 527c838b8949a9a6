"""One checkpoint, three engines: each in its highest precision says what the unquantized reference
says, and all go on alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.reference import Reference
from packager.shape import Shape
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.test_openvino_engine import finish

pytestmark = pytest.mark.engine


class Engine(NamedTuple):
    """A recipe that quantizes nothing, and the largest difference that its own precision may make
    in a log-probability, in nats."""

    weights: str
    kv: str
    most: float


ENGINES = {
    "llama.cpp": Engine("F16", "f16", 0.05),
    "openvino": Engine("bf16", "f16", 0.15),
    "onnxruntime": Engine("fp32", "f32", 1e-3),
}
SHAPES = {
    "qwen": Shape("qwen", 64, 2, 2, 2, 32, 128, 1024, False, True, False, 2048, 10_000.0),
    "qwen2": tiny_shape("qwen2", heads=4, kv_heads=2),
    "qwen3": tiny_shape("qwen3", heads=4, kv_heads=2, tied=False),
}
TRAINED = "trained"
PROMPTS = [
    "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHow old is Tom?<|im_end|>\n<|im_start|>assistant\n",
    "The package is",
]
NEW_TOKENS = 32
TIE = 0.1
"""Two tokens whose logits lie nearer than the engines' own precision moves them: behind one,
answers are about different texts."""
IDS = np.random.default_rng(5).integers(0, 1000, 150).tolist()

Said = Callable[[str], tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints: the trained one, and random ones with weights so large that their logits say
    something."""
    home = tmp_path_factory.mktemp("agree")
    for name, shape in SHAPES.items():
        file, random = (
            write_tiny(home / name, shape=shape) / "model.safetensors",
            np.random.default_rng(1),
        )
        tensors = {
            key: value + random.normal(0, 0.2, value.shape).astype(value.dtype)
            if value.ndim == 1
            else value * value.dtype.type(6)
            for key, value in load_file(file).items()
        }
        save_file(tensors, file, {"format": "pt"})
    (home / TRAINED).symlink_to(REPOSITORY / "tests" / "models" / "tiny-qwen3")
    return home


@pytest.fixture(scope="module")
def said(home: Path) -> Said:
    """A function from an engine to the ids of its answers by checkpoint, and the folder with its
    logits; every engine starts once."""
    found: dict[str, tuple[dict[str, Any], Path]] = {}

    def by(engine: str) -> tuple[dict[str, Any], Path]:
        if engine not in found:
            out = home / f"{engine}-out"
            arguments: dict[str, Any] = {
                "runtime": engine,
                "weights": ENGINES[engine].weights,
                "kv": ENGINES[engine].kv,
                "checkpoints": {name: str((home / name).resolve()) for name in (*SHAPES, TRAINED)},
                "ids": IDS,
                "prompts": {TRAINED: PROMPTS},
                "new_tokens": NEW_TOKENS,
                "out": str(out),
            }
            found[engine] = (
                finish(
                    "tests.support.agreement_jobs:build_and_say",
                    home / f"{engine}.log",
                    **arguments,
                )[0].value,
                out,
            )
        return found[engine]

    return by


@pytest.mark.parametrize("name", [*SHAPES, TRAINED])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_says_what_the_reference_says(
    engine: str, name: str, said: Said, home: Path
) -> None:
    expected = Reference.compute(Checkpoint.open((home / name).resolve()), [IDS], Silent()).logits(
        0
    )
    assert np.abs(expected).max() > 1, "weights that say something"
    logits = np.load(said(engine)[1] / f"{name}.npy")[:, : expected.shape[1]]
    assert len(logits) == len(IDS)
    difference = np.abs(log_probabilities(logits) - log_probabilities(expected)).max()
    assert difference < ENGINES[engine].most


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_every_engine_goes_on_with_what_the_reference_finds_best_or_as_good_as_best(
    number: int, engine: str, said: Said, home: Path
) -> None:
    found = said(engine)[0][TRAINED]
    asked, answer = found["asked"][number], found["said"][number]
    assert len(answer) == NEW_TOKENS
    assert asked == said("onnxruntime")[0][TRAINED]["asked"][number], "the same prompt as token ids"
    sequence = [*asked, *answer]
    logits = Reference.compute(
        Checkpoint.open((home / TRAINED).resolve()), [sequence], Silent()
    ).logits(0)[len(asked) - 1 : -1]
    worse = logits.max(axis=-1) - logits[range(NEW_TOKENS), answer]
    # Of two candidates each may be off by as much, in opposite directions.
    assert worse.max() < 2 * ENGINES[engine].most
    assert (worse == 0).mean() > 0.9


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_the_engines_give_one_answer_as_far_as_the_reference_has_no_tie(
    number: int, said: Said, home: Path
) -> None:
    answers = [said(engine)[0][TRAINED]["said"][number] for engine in ENGINES]
    asked, answer = said("onnxruntime")[0][TRAINED]["asked"][number], answers[-1]
    logits = Reference.compute(
        Checkpoint.open((home / TRAINED).resolve()), [[*asked, *answer]], Silent()
    ).logits(0)[len(asked) - 1 : -1]
    second, best = np.sort(logits, axis=-1)[:, -2:].T
    ties = np.flatnonzero(best - second < TIE)
    sure = int(ties[0]) if len(ties) else NEW_TOKENS
    assert sure >= 4, "more than a first word"
    assert {tuple(one[:sure]) for one in answers} == {tuple(answer[:sure])}


def log_probabilities(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
