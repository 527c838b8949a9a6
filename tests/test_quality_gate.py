"""The quality gate: on real weights good recipes pass and what is broken is stopped, with every
engine's own logits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.events import StageFailed, StageFinished
from packager.need.workload import merge
from packager.pipeline import quality_stage as stage
from packager.pipeline.run import run
from packager.plan.choose import make_plan
from packager.process import run_job
from packager.quality import paper
from packager.quality.gate import Gate
from packager.quality.text import of_file, shipped
from packager.quality.thresholds import limits
from packager.quality.verdict import check, judged
from targets import registry
from tests.support.make_checkpoint import write_tiny
from tests.support.quality_facts import TINY, refusal_of, verdict_of
from tests.support.tiers import thorough

TOKENS = 512


GGUF_IN_OPENVINO = "gguf:Q4_K_M"


DAMAGED = "scales of the neighbours"


ENGINES = {
    "llama.cpp": (["gguf:Q8_0", "gguf:Q6_K", "gguf:Q4_K_M", "gguf:Q2_K"], []),
    "openvino": (["openvino:int8_asym", GGUF_IN_OPENVINO, "openvino:int4_sym_g128"], [DAMAGED]),
    "onnxruntime": (["onnx:int8_sym_b32", "onnx:int4_k_quant_b32"], []),
}


def finished(name: str, log: Path, **arguments: Any) -> dict[str, Any]:
    work = run_job(name, arguments, log)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: dict[str, Any] = stop.value.value
            return value


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the unquantized model says."""
    home = tmp_path_factory.mktemp("gate")
    finished(
        "packager.quality.job:reference",
        home / "log",
        checkpoint=str(TINY),
        text=None,
        tokens=TOKENS,
        out=str(home / "reference"),
    )
    return home


@pytest.fixture(scope="module")
def facts(home: Path) -> Iterator[Any]:
    """A function from an engine to what was found of each of its artifacts; every engine starts
    once."""
    found: dict[str, dict[str, Any]] = {}

    def of(engine: str) -> dict[str, Any]:
        if engine not in found:
            recipes, damaged = ENGINES[engine]
            read = {"checkpoint": str(TINY), "text": None, "tokens": TOKENS}
            ways = {"read": read, "reference": str(home / "reference"), "out": str(home / engine)}
            found[engine] = finished(
                "tests.support.quality_jobs:build_and_compare",
                home / f"{engine}.log",
                runtime=engine,
                recipes=recipes,
                damaged=damaged,
                **ways,
            )
        return found[engine]

    yield of


@pytest.mark.engine
@pytest.mark.parametrize(
    ("engine", "recipe"),
    [
        ("llama.cpp", "gguf:Q8_0"),
        ("llama.cpp", "gguf:Q6_K"),
        ("llama.cpp", "gguf:Q4_K_M"),
        thorough("openvino", "openvino:int8_asym"),
        thorough("openvino", "openvino:int4_sym_g128"),
        thorough("onnxruntime", "onnx:int8_sym_b32"),
        thorough("onnxruntime", "onnx:int4_k_quant_b32"),
    ],
)
def test_a_sound_recipe_passes_with_room(engine: str, recipe: str, facts: Any) -> None:
    grade = registry.runtime(engine).recipe(recipe.partition(":")[2]).grade
    quality = verdict_of(facts(engine)[recipe], grade)
    check(quality)
    assert quality.passed and quality.differences == ()
    assert 0 < quality.kl_mean < limits(grade).kl_mean / 2
    assert quality.top1 > limits(grade).top1 + 0.03
    assert {part.name for part in quality.parts} == {part.name for part in shipped().parts}
    assert sum(part.tokens for part in quality.parts) == quality.tokens > 0.95 * TOKENS


@pytest.mark.engine
def test_fewer_bits_lose_more(facts: Any) -> None:
    found = facts("llama.cpp")
    lost = [found[recipe]["figures"]["kl_mean"] for recipe in ENGINES["llama.cpp"][0]]
    assert lost == sorted(lost)
    agreed = [found[recipe]["figures"]["top1"] for recipe in ENGINES["llama.cpp"][0]]
    assert agreed == sorted(agreed, reverse=True)


@pytest.mark.engine
def test_two_bits_without_an_importance_matrix_are_stopped_with_room(facts: Any) -> None:
    quality = verdict_of(facts("llama.cpp")["gguf:Q2_K"], "2-bit")
    assert "The artifact lost more than 2-bit weights may: same top token" in refusal_of(quality)
    assert quality.top1 < limits("2-bit").top1 - 0.04


@pytest.mark.engine
@pytest.mark.thorough(
    "test_two_bits_without_an_importance_matrix_are_stopped_with_room",
    "test_openvino_goes_on_after_a_picture_as_the_unquantized_model_and_damage_is_stopped",
)
def test_an_int4_whose_scales_stand_one_group_off_is_stopped(facts: Any) -> None:
    quality = verdict_of(facts("openvino")[DAMAGED], "4-bit")
    assert "mean divergence" in refusal_of(quality)
    assert quality.kl_mean > 2 * limits("4-bit").kl_mean
    assert quality.differences == (), "its language is untouched: only the logits tell"


@pytest.mark.engine
@pytest.mark.thorough(
    "test_a_type_that_the_reader_changes_is_refused_with_the_reason",
    "test_two_bits_without_an_importance_matrix_are_stopped_with_room",
)
def test_a_gguf_read_by_openvino_has_its_minima_rounded_and_is_stopped_as_it_forgot_an_end_of_turn(
    facts: Any,
) -> None:
    by_openvino, by_llama = facts("openvino")[GGUF_IN_OPENVINO], facts("llama.cpp")["gguf:Q4_K_M"]
    assert by_openvino["figures"]["kl_mean"] > 1.5 * by_llama["figures"]["kl_mean"], "the same file"
    assert "does not stop at 2022 ('<|endoftext|>')" in refusal_of(verdict_of(by_openvino, "4-bit"))


@pytest.mark.engine
def test_the_unquantized_model_in_its_own_engine_would_be_held_to_the_strictest_limits(
    facts: Any,
) -> None:
    assert "perplexity ratio" not in refusal_of(
        verdict_of(facts("llama.cpp")["gguf:Q4_K_M"], "16-bit")
    ), "by divergence and agreement"


def planned(recipe: str, out: Path, runtimes: Any = None, gate: Gate | None = None) -> Any:
    target = registry.target("cpu-gguf")
    workload = merge({"context": 256}, target.workload)
    return make_plan(
        target,
        workload,
        runtimes or registry.runtimes(),
        recipe=recipe,
        weights=str(TINY),
        out=out,
        gate=gate,
    )


@pytest.mark.engine
def test_a_build_that_lost_too_much_leaves_no_package_unless_the_loss_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "p"
    flags = [
        "build",
        "--target",
        "cpu-gguf",
        "--context",
        "256",
        "--recipe",
        "gguf:Q2_K",
        "--weights",
        str(TINY),
        "--out",
        str(package),
    ]
    assert main(flags) == ExitCode.BUDGET
    said = capsys.readouterr().err
    assert (
        "Error: Quality gate: The artifact lost more than 2-bit weights may: same top token" in said
    )
    assert "--allow-quality-loss" in said
    assert not package.exists()

    assert main([*flags, "--allow-quality-loss"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "missed, and let through: same top token" in said
    quality = json.loads((package / "manifest.json").read_text())["quality"]
    assert (quality["passed"], quality["loss_allowed"], quality["skipped"]) == (False, True, None)
    assert quality["limits"]["grade"] == "2-bit" and "Q2_K" in quality["limits"]["source"]
    assert quality["text"] == {"name": "qwen-pack", "sha256": shipped().sha256}
    readme = (package / "README.md").read_text()
    assert "the build accepted that" in readme
    assert "| english | " in readme and "* MISSED: same top token" in readme

    # The user's own text and fewer tokens: what was built and measured is taken from the cache, the
    # comparison is made anew.
    text = tmp_path / "mine.txt"
    text.write_text("The package holds one model. " * 40)
    assert (
        main(
            [
                *flags,
                "--quality-text",
                str(text),
                "--quality-tokens",
                "64",
                "--allow-quality-loss",
                "--json",
            ]
        )
        == ExitCode.DONE
    )
    quality = json.loads(capsys.readouterr().out)["manifest"]["quality"]
    assert quality["text"]["name"] == "mine.txt" and quality["tokens"] == 63
    assert [part["name"] for part in quality["parts"]] == ["text"]


@pytest.mark.engine
@pytest.mark.thorough(
    "test_a_template_that_is_not_the_tokenizers_stops_the_build",
    "test_a_build_that_lost_too_much_leaves_no_package_unless_the_loss_is_allowed",
)
def test_a_build_whose_template_was_swapped_on_the_way_is_stopped(tmp_path: Path) -> None:
    # The adapter itself with another build job: the engine and all stages are the real ones.
    class Swapping(type(registry.runtime("llama.cpp"))):  # type: ignore[misc]
        build_job = "tests.support.quality_jobs:gguf_with_another_template"

    events: list[Any] = []
    plan = planned("gguf:Q4_0", tmp_path / "p", [Swapping()])
    with pytest.raises(
        PackError, match=r"Quality gate: The chat template writes '\[INST\]"
    ) as caught:
        events.extend(run(plan))
    assert caught.value.exit_code is ExitCode.BUDGET
    assert [event.stage for event in events if isinstance(event, StageFailed)] == ["quality"]
    assert [event.stage for event in events if isinstance(event, StageFinished)] == [
        "fetch",
        "convert",
        "measure",
    ]
    assert not plan.out.exists()


@pytest.mark.engine
@pytest.mark.parametrize(
    ("engine", "recipe", "kv", "grade"),
    [
        ("llama.cpp", "gguf:Q8_0", "q8_0", "8-bit"),
        thorough("openvino", "openvino:int8_asym", "u8", "8-bit"),
    ],
)
def test_the_packaged_cache_is_compared_when_it_is_full_and_loses_little(
    engine: str, recipe: str, kv: str, grade: str, facts: Any, home: Path
) -> None:
    facts(engine)
    quality = verdict_of(with_cache(home, engine, recipe, kv, grade), grade)
    check(quality)
    assert quality.cache.kv == kv and quality.cache.context == TOKENS
    assert quality.cache.tokens == 255 and not quality.cache.broken
    assert 0 < quality.cache.kl_mean < quality.cache.kl_p99
    assert {row.rule for row in quality.verdicts} >= {"cache_kl_mean", "cache_top1"}
    assert f"a cache of the type {kv}" in paper.markdown(quality)


def with_cache(home: Path, engine: str, recipe: str, kv: str, grade: str) -> dict[str, Any]:
    """What the gate finds of an artifact with that cache type, at a context of TOKENS."""
    session = registry.runtime(engine).session
    return finished(
        "packager.quality.job:compare",
        home / "cache.log",
        session=session,
        artifact=str(home / engine / recipe.replace(":", "-")),
        settings={"kv": kv, "threads": 1, "gpu_layers": 0},
        checkpoint=str(TINY),
        text=None,
        tokens=TOKENS,
        reference=str(home / "reference"),
        stops=True,
        context=TOKENS,
        cache={"session": session, "against": "f16", "grade": grade},
    )


@pytest.mark.engine
def test_a_text_that_cannot_be_read_is_refused_before_the_build_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, code, said in (
        ("missing.txt", ExitCode.USAGE, "There is no file"),
        (".", ExitCode.USAGE, "is not a file"),
        ("empty.txt", ExitCode.INPUT, "holds no text"),
        ("binary.txt", ExitCode.INPUT, "is not UTF-8 text"),
    ):
        with pytest.raises(PackError, match=said) as caught:
            of_file(tmp_path / name)
        assert caught.value.exit_code is code
    flags = [
        "--target",
        "cpu-gguf",
        "--context",
        "256",
        "--recipe",
        "gguf:Q8_0",
        "--weights",
        str(TINY),
        "--out",
        str(tmp_path / "p"),
    ]
    assert main(["build", *flags, "--quality-text", str(tmp_path / "empty.txt")]) == ExitCode.INPUT
    assert "holds no text" in capsys.readouterr().err


@pytest.mark.engine
def test_random_weights_are_not_compared_and_say_why(tmp_path: Path) -> None:
    plan = planned("gguf:Q8_0", tmp_path / "p")
    assert stage.why_not(plan) is None
    assert stage.why_not(replace(plan, source=replace(plan.source, kind="dummy"))) == stage.RANDOM


@pytest.mark.engine
def test_the_gate_is_part_of_what_a_package_depends_on(tmp_path: Path) -> None:
    one = planned("gguf:Q8_0", tmp_path / "p")
    assert one.as_dict() == planned("gguf:Q8_0", tmp_path / "p").as_dict()
    text = tmp_path / "mine.txt"
    text.write_text("Other words.")
    for other in (Gate(tokens=64), Gate(allow_loss=True), Gate(file=text)):
        assert replace(one, gate=other).as_dict() != one.as_dict()


@pytest.mark.engine
def test_an_artifact_whose_predictions_are_no_numbers_is_no_package_random_weights_or_not(
    tmp_path: Path,
) -> None:
    """Weights that are numbers, and activations that overflow."""
    folder = write_tiny(tmp_path / "large", dtype="F32")
    tensors = load_file(folder / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith(("up_proj.weight", "gate_proj.weight")):
            tensors[name] = values * np.float32(1e25)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    runtime = registry.runtime("llama.cpp")
    recipe, out = asdict(runtime.recipe("BF16")), tmp_path / "artifact"
    out.mkdir()
    finished(
        runtime.build_job,
        tmp_path / "log",
        checkpoint=str(folder),
        recipe=recipe,
        workload={},
        out=str(out),
    )
    arguments = {
        "session": runtime.session,
        "artifact": str(out),
        "settings": {"kv": "f16", "threads": 1, "gpu_layers": 0},
    }
    arguments |= {
        "checkpoint": str(folder),
        "text": None,
        "tokens": 64,
        "reference": None,
        "stops": False,
    }
    facts = finished("packager.quality.job:compare", tmp_path / "log", **arguments)
    assert facts["not_numbers"] == facts["predictions"] > 0
    for allow_loss in (False, True):
        with pytest.raises(
            PackError, match="predictions of the artifact are not numbers"
        ) as refused:
            check(judged(facts, None, "the weights are random", allow_loss))
        assert refused.value.exit_code == ExitCode.BUDGET
