"""The quality gate: on real weights good recipes pass and what is broken is stopped, with every
engine's own logits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.events import StageFailed, StageFinished
from packager.need.workload import merge
from packager.pipeline import quality_stage as stage
from packager.pipeline.cache import BuildCache
from packager.pipeline.job import Job
from packager.pipeline.run import _reference, run
from packager.plan.choose import make_plan
from packager.process import run_job
from packager.quality import job, paper
from packager.quality.gate import Gate
from packager.quality.text import Part, Text, of_file, pieces, shipped
from packager.quality.thresholds import grades, limits, tokens_for
from packager.quality.verdict import check, judged, skipped, summary
from packager.records import Contents, Misfit, Quality
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent, write_tiny
from tests.support.make_package import body, write_package

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
TOKENS = 512
TEXT = {"name": "a text", "sha256": "0" * 64}
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


def verdict_of(facts: dict[str, Any], grade: str, allow: bool = False) -> Quality:
    return judged({**facts, "text": TEXT}, limits(grade), None, allow)


def refusal_of(quality: dict[str, Any]) -> str:
    with pytest.raises(PackError) as caught:
        check(quality)
    assert caught.value.exit_code is ExitCode.BUDGET
    assert "--allow-quality-loss" in caught.value.hint
    return caught.value.message


@pytest.mark.engine
@pytest.mark.parametrize(
    ("engine", "recipe"),
    [
        ("llama.cpp", "gguf:Q8_0"),
        ("llama.cpp", "gguf:Q6_K"),
        ("llama.cpp", "gguf:Q4_K_M"),
        ("openvino", "openvino:int8_asym"),
        ("openvino", "openvino:int4_sym_g128"),
        ("onnxruntime", "onnx:int8_sym_b32"),
        ("onnxruntime", "onnx:int4_k_quant_b32"),
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
def test_an_int4_whose_scales_stand_one_group_off_is_stopped(facts: Any) -> None:
    quality = verdict_of(facts("openvino")[DAMAGED], "4-bit")
    assert "mean divergence" in refusal_of(quality)
    assert quality.kl_mean > 2 * limits("4-bit").kl_mean
    assert quality.differences == (), "its language is untouched: only the logits tell"


@pytest.mark.engine
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
        ("openvino", "openvino:int8_asym", "u8", "8-bit"),
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


@pytest.mark.parametrize(
    ("changed", "rule"),
    [({"kl_mean": 0.021}, "cache_kl_mean"), ({"top1": 0.93}, "cache_top1"), ({"broken": 1}, "")],
)
def test_a_cache_that_loses_more_than_weights_of_its_bits_may_stops_the_build(
    changed: dict[str, float], rule: str
) -> None:
    cache = {
        **{"kv": "q8_0", "against": "f16", "grade": "8-bit", "context": 4096, "tokens": 255},
        **{"broken": 0, "kl_mean": 0.001, "kl_p99": 0.01, "top1": 0.99},
    }
    check(verdict_of({**facts_with(), "cache": cache}, "4-bit"))
    quality = verdict_of({**facts_with(), "cache": {**cache, **changed}}, "4-bit")
    missed = [row.rule for row in quality.verdicts if not row.passed]
    assert missed == [rule] if rule else len(missed) == 2
    with pytest.raises(PackError, match="full cache") as caught:
        check(quality)
    assert "/kv_" in caught.value.hint
    check(quality.but(loss_allowed=True))


def facts_with(**figures: float) -> dict[str, Any]:
    found = {
        "tokens": 100,
        "broken": 0,
        "kl_mean": 0.01,
        "kl_p95": 0.05,
        "kl_max": 0.2,
        "top1": 0.95,
        "perplexity": 9.9,
    }
    found |= {"reference_perplexity": 9.8, "perplexity_ratio": 1.01, **figures}
    same = {
        "texts": 1,
        "tokens": 2,
        "control_tokens": 3,
        "conversations": 1,
        "ends": [1],
        "stopped_after": 4,
        "notes": [],
        "findings": [],
    }
    return {
        "figures": found,
        "parts": [],
        "text": TEXT,
        "vocabulary": 1000,
        "compare_seconds": 1.0,
        "parity": same,
    }


@pytest.mark.parametrize(
    ("rule", "value"),
    [("kl_mean", 0.151), ("top1", 0.799), ("perplexity_ratio", 1.151), ("kl_mean", None)],
)
def test_one_limit_missed_is_enough(rule: str, value: float | None) -> None:
    check(verdict_of(facts_with(), "4-bit"))
    quality = verdict_of(facts_with(**{rule: value}), "4-bit")
    assert [row.rule for row in quality.verdicts if not row.passed] == [rule]
    assert refusal_of(quality).count(" of at ") == 1
    check(verdict_of(facts_with(**{rule: value}), "4-bit", allow=True))


def test_what_no_class_has_limits_for_is_reported_and_passes() -> None:
    quality = verdict_of(facts_with(kl_mean=3.0), "0-bit")
    check(quality)
    assert (quality.limits, quality.verdicts, quality.passed) == (None, (), True)


def test_predictions_that_are_no_numbers_are_never_let_through() -> None:
    with pytest.raises(
        PackError, match="7 of 100 predictions of the artifact are not numbers"
    ) as caught:
        check(verdict_of(facts_with(broken=7), "4-bit", allow=True))
    assert caught.value.exit_code is ExitCode.BUDGET


def test_another_language_is_a_loss_that_can_only_be_let_through_by_name() -> None:
    facts = facts_with()
    facts["parity"]["findings"] = ["The control token <x> is [1, 2] in the artifact", "second"]
    assert (
        refusal_of(verdict_of(facts, "4-bit"))
        == "The control token <x> is [1, 2] in the artifact (1 more difference)."
    )
    allowed = verdict_of(facts, "4-bit", allow=True)
    check(allowed)
    assert (allowed.passed, allowed.loss_allowed) == (False, True)
    random = judged({**facts, "figures": None}, limits("4-bit"), "the weights are random", False)
    assert refusal_of(random).startswith("The control token"), "also where divergence says nothing"


def test_a_model_that_knows_nothing_of_the_text_can_lose_nothing() -> None:
    quality = verdict_of(facts_with(reference_perplexity=990.0, kl_mean=9.0), "8-bit")
    check(quality)
    assert "hardly better than chance" in quality.skipped
    assert "same tokens, template and end of turn; quality not compared" in summary(quality)


def test_what_the_gate_says_can_be_read_again_from_a_manifest(tmp_path: Path) -> None:
    data = body(write_package(tmp_path / "p"))
    for quality in (
        verdict_of(facts_with(), "4-bit"),
        skipped("the weights are random"),
        verdict_of(facts_with(), "no class"),
    ):
        written = json.loads(json.dumps({**data, "quality": quality.to_json()}))
        assert Contents.from_json(written).quality == quality
        assert paper.markdown(quality).startswith("## Quality\n\n")
    with pytest.raises(Misfit, match=r"'quality\.kl_mean' is missing or of the wrong kind"):
        Contents.from_json({**data, "quality": {**quality.to_json(), "kl_mean": "small"}})


def test_every_recipe_has_a_class_with_limits_and_more_bits_never_have_looser_ones() -> None:
    assert {recipe.grade for runtime in registry.runtimes() for recipe in runtime.recipes()} <= set(
        grades()
    )
    ordered = [limits(grade) for grade in grades()]
    for strict, loose in pairwise(ordered):
        assert (
            strict.kl_mean <= loose.kl_mean
            and strict.top1 >= loose.top1
            and strict.perplexity_ratio <= loose.perplexity_ratio
        )
    assert all(one.source for one in ordered)


def test_a_larger_model_reads_fewer_tokens() -> None:
    counts = [
        tokens_for(parameters)
        for parameters in (3_000_000, 600_000_000, 4_000_000_000, 32_000_000_000)
    ]
    assert counts == sorted(counts, reverse=True) and counts[-1] >= 256
    assert Gate(tokens=77).tokens_for(32_000_000_000) == 77


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("classes = 3", "classes and tokens are both needed"),
        (
            "[classes.x]\nkl_mean = 1\ntop1 = 0.5\nsource = 's'\n[[tokens]]\ncount = 1",
            r"t\.toml: classes\.x needs exactly",
        ),
        (
            "[classes.x]\nkl_mean = 0\ntop1 = 0.5\nperplexity_ratio = 1\nsource = "
            "'s'\n[[tokens]]\ncount = 1",
            r"classes\.x\.kl_mean is not a positive",
        ),
        (
            "[classes.x]\nkl_mean = 1\ntop1 = 5\nperplexity_ratio = 1\nsource = "
            "'s'\n[[tokens]]\ncount = 1",
            r"classes\.x\.top1 is a share",
        ),
        (
            "[classes.x]\nkl_mean = 1\ntop1 = 1\nperplexity_ratio = 1\nsource = ' "
            "'\n[[tokens]]\ncount = 1",
            r"classes\.x\.source names no source",
        ),
        (
            "[classes.x]\nkl_mean = 1\ntop1 = 1\nperplexity_ratio = 1\nsource = "
            "'s'\n[[tokens]]\nbelow = 1\ncount = 1",
            r"tokens\[0\] needs exactly",
        ),
        ("classes = [", r"t\.toml: "),
    ],
)
def test_a_mistake_in_the_table_of_limits_names_file_and_key(
    table: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(table)
    with pytest.raises(PackError, match=said):
        limits("x", file)


def test_every_part_gives_an_equal_share_in_pieces_that_fit_the_window() -> None:
    text = Text("t", (Part("long", "abcdef" * 50), Part("short", "xyz"), Part("one", "q")))
    found = pieces(text, lambda words: [ord(letter) for letter in words], 60, window=8)
    assert [(piece.part, len(piece.ids)) for piece in found] == [
        ("long", 8),
        ("long", 8),
        ("long", 4),
        ("short", 3),
    ]
    with pytest.raises(PackError, match="shorter than two tokens"):
        pieces(Text("t", (Part("one", "q"),)), lambda words: [1], 60)


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


def test_a_reference_that_this_machine_cannot_compute_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    arguments: dict[str, Any] = {"checkpoint": str(TINY), "text": None, "tokens": 64}
    with monkeypatch.context() as small:
        small.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000_000))
        found = job.reference(Silent(), **arguments, out=str(tmp_path / "a"))
    assert "of memory and 1.00 MB are free" in found["not_possible"]
    assert not (tmp_path / "a").exists()
    folder = write_tiny(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "rope_scaling": {"rope_type": "spiral", "factor": 2.0}})
    )
    with pytest.raises(PackError, match="'spiral'"):
        job.reference(Silent(), **{**arguments, "checkpoint": str(folder)}, out=str(tmp_path / "b"))


def test_a_reference_that_is_killed_for_its_memory_stops_no_build_and_one_that_is_broken_does(
    tmp_path: Path,
) -> None:
    cache = BuildCache(tmp_path / "cache")

    def ended(name: str, **arguments: Any) -> tuple[Any, str | None]:
        work = _reference(
            cache,
            Job(
                "reference",
                f"tests.support.jobs:{name}",
                arguments,
                "k",
                needs_out=False,
                row="quality",
            ),
        )
        while True:
            try:
                assert next(work).stage == "quality"
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    kept, why_not = ended("vanish", number=9)
    assert kept is None and why_not is not None and "most likely because memory ran out" in why_not
    with pytest.raises(PackError, match=r"model\.safetensors is damaged"):
        ended("refuse")


@pytest.mark.engine
def test_random_weights_are_not_compared_and_say_why(tmp_path: Path) -> None:
    plan = planned("gguf:Q8_0", tmp_path / "p")
    assert stage.why_not(plan) is None
    assert stage.why_not(replace(plan, source=replace(plan.source, kind="dummy"))) == stage.RANDOM


def test_a_kept_reference_of_another_text_is_not_taken(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"checkpoint": str(TINY), "text": None, "tokens": 64}
    job.reference(Silent(), **arguments, out=str(tmp_path / "kept"))
    source = Checkpoint.open(TINY)
    other = pieces(shipped(), job.encoder(source), 32)
    with pytest.raises(PackError, match="is the reference of another checkpoint or text"):
        job.divergence(Silent(), SimpleNamespace(), source, other, tmp_path / "kept" / job.KEPT)  # type: ignore[arg-type]


@pytest.mark.engine
def test_the_gate_is_part_of_what_a_package_depends_on(tmp_path: Path) -> None:
    one = planned("gguf:Q8_0", tmp_path / "p")
    assert one.as_dict() == planned("gguf:Q8_0", tmp_path / "p").as_dict()
    text = tmp_path / "mine.txt"
    text.write_text("Other words.")
    for other in (Gate(tokens=64), Gate(allow_loss=True), Gate(file=text)):
        assert replace(one, gate=other).as_dict() != one.as_dict()


def test_a_long_piece_reaches_beyond_windows_and_original_contexts_as_far_as_the_artifact_does(
    tmp_path: Path,
) -> None:
    def read(context: int | None = None, **config: Any) -> tuple[tuple[int, int | None], list[int]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(TINY, folder)
        plain = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**plain, **config}))
        source = Checkpoint.open(folder)
        return job.piece_tokens(source, context), [
            len(piece.ids) for piece in job._pieces(source, None, 600, context)
        ]

    def sliding(window: int) -> dict[str, Any]:
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 2}

    def yarn(original: int) -> dict[str, Any]:
        return {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": original,
            }
        }

    ordinary = read()[1]
    assert max(ordinary) <= 100
    assert read(256) == ((512, None), ordinary)
    assert read(**sliding(700)) == ((512, 956), [*ordinary, 956])
    assert read(**sliding(200)) == ((512, 456), [*ordinary, 456])
    assert read(**yarn(1024)) == ((512, 1280), [*ordinary, 1280])
    assert read(**yarn(32768)) == ((512, None), ordinary), "further out than anybody waits for"
    # An engine without windows builds within them, and is asked for no more.
    assert read(700, **sliding(700)) == ((512, None), ordinary)
    assert read(800, **sliding(700)) == ((512, 800), [*ordinary, 800])


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


def test_a_perplexity_that_is_no_number_is_no_sign_of_chance() -> None:
    from packager.quality.verdict import hardly_better_than_chance

    assert not hardly_better_than_chance(None, 100)


def test_weights_that_are_no_numbers_stop_the_reference_by_name(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "nan")
    opened = Checkpoint.open(folder)
    tensor = opened.tensors["model.layers.2.mlp.down_proj.weight"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(tensor.offset + 10)
        file.write(b"\xc0\x7f")
    with pytest.raises(
        PackError, match=r"'model\.layers\.2\.mlp\.down_proj\.weight' .* holds NaN"
    ) as refused:
        job.reference(
            Silent(), checkpoint=str(folder), text=None, tokens=64, out=str(tmp_path / "out")
        )
    assert refused.value.exit_code == ExitCode.INPUT
