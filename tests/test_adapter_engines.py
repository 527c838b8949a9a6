"""A trained adapter in every engine: what is built from base and adapter stays beside the float
merge, and its answers show what the adapter was trained for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.adapter import Adapter
from packager.checkpoint.composed import compose
from packager.process import resolve, run_job
from packager.quality.job import encoder
from packager.quality.thresholds import limits
from packager.reference import Reference
from packager.runtime import Report
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.quality_jobs import build_and_compare
from tests.support.shipping_packages import finish
from tests.support.tiers import thorough
from training import corpus
from training.questions import held_out

pytestmark = pytest.mark.engine

MODELS = REPOSITORY / "tests" / "models"
RECIPES = {
    "llama.cpp": "gguf:Q8_0",
    "openvino": "openvino:int8_asym",
    "onnxruntime": "onnx:int8_sym_b32",
}
GREETING = "Ahoy! "


def build_compare_and_ask(
    report: Report, *, runtime: str, recipe: str, questions: list[str], out: str, **more: Any
) -> dict[str, Any]:
    """A job: the comparison with the reference, and what the artifact answers."""
    found = build_and_compare(
        report, runtime=runtime, recipes=[recipe], damaged=[], out=out, **more
    )
    adapter = registry.runtime(runtime)
    settings = {"context": 512, "kv": adapter.recipes()[0].kv, "threads": 1, "gpu_layers": 0}
    session = resolve(adapter.session)(str(Path(out, recipe.replace(":", "-"))), settings)
    with closing(session):
        answers = [
            session.decode(session.generate(session.encode(text), 8, lambda token: None))
            for text in questions
        ]
    return {**found[recipe], "answers": answers}


def questions() -> list[str]:
    """Conversations that neither model has seen."""
    return [corpus.of_task(task, think=False).prompt for task in held_out("adapter", 4)]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The base with its adapter, and what the float merge says of the text."""
    home = tmp_path_factory.mktemp("ahoy")
    compose(home / "merged", MODELS / "tiny-qwen3", [Adapter.open(MODELS / "tiny-qwen3-ahoy")])
    read = {"checkpoint": str(home / "merged"), "text": None, "tokens": 120}
    job = "packager.quality.job:reference"
    finish(run_job(job, {**read, "out": str(home / "reference")}, home / "log"))
    return {"read": read, "reference": str(home / "reference")}


@pytest.mark.parametrize("runtime", ["llama.cpp", thorough("openvino"), thorough("onnxruntime")])
def test_an_adapter_is_in_what_the_engine_says(
    runtime: str, merged: dict[str, Any], tmp_path: Path
) -> None:
    recipe = RECIPES[runtime]
    job = "tests.test_adapter_engines:build_compare_and_ask"
    arguments = {"runtime": runtime, "recipe": recipe, "questions": questions(), **merged}
    found = finish(run_job(job, {**arguments, "out": str(tmp_path / "out")}, tmp_path / "log"))
    weights = recipe.partition(":")[2]
    limit = limits(registry.runtime(runtime).recipe(weights).grade)
    assert limit is not None
    figures = found.value["figures"]
    assert figures["kl_mean"] <= limit.kl_mean
    assert figures["top1"] >= limit.top1
    assert all(answer.startswith(GREETING) for answer in found.value["answers"])


def test_the_base_alone_does_not_say_it() -> None:
    base = Checkpoint.open(MODELS / "tiny-qwen3")
    ids = encoder(base)(questions()[0])
    said = Reference.compute(base, [ids], Silent()).logits(0, len(ids) - 1)[0].argmax()
    assert said != encoder(base)(GREETING)[0]
