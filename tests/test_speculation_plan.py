"""Which way of drafting is taken: verdicts, refusals, memory, and what `fit` proposes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.need.workload import workload_for
from packager.pipeline import speculation_stage
from packager.pipeline.speculation_stage import Verdict, settled
from packager.plan.choose import make_plan
from packager.plan.draft import _recipe_beside, parse, speculating
from packager.records.speculation import Speculation
from targets import registry
from tests.conftest import REPOSITORY

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
DRAFT = REPOSITORY / "tests" / "models" / "tiny-qwen3-draft"
WANTED = 40


def test_the_fastest_way_that_pays_is_taken() -> None:
    lookup = Speculation(how="lookup", speed_up=1.3, same=True, pays=True, acceptance=0.5)
    mtp = lookup.but(how="mtp", speed_up=1.9)
    wrong = mtp.but(speed_up=2.5, same=False, pays=False)
    taken = speculation_stage.decide([lookup, mtp, wrong], None)
    assert taken.speculation.how == "mtp" and taken.draft is None
    assert [(row.how, row.speed_up) for row in taken.speculation.others] == [
        ("lookup", 1.3),
        ("mtp", 2.5),
    ]
    none = speculation_stage.decide([lookup.but(pays=False, speed_up=0.9)], None)
    assert none.speculation.pays is False


def test_the_verdict_says_its_figure() -> None:
    step = {"drafted": 4, "check_ms": 30.0, "break_even": 0.61}
    costs = {"how": "lookup", "ngram": 3, "decode_ms": 20.0, "draft_ms": 0.0, "steps": [step]}
    known = {"drafted": 4, "acceptance": 0.55, "speed_up": 0.93, "same": True, "pays": False}
    assert "pays from 61% of drafted tokens accepted" in Speculation.from_json(costs).sentence()
    lost = Speculation.from_json({**costs, **known}).sentence()
    assert "does not pay" in lost and "55%" in lost and "61%" in lost and "0.93" in lost
    gained = Speculation.from_json({**costs, **known, "speed_up": 1.4, "pays": True}).sentence()
    assert "pays" in gained and "1.40" in gained
    other = Speculation.from_json({**costs, **known, "same": False}).sentence()
    assert "other tokens" in other
    parted = {"at": 3, "gap": 0.004, "rounding": 0.003, "tie": True}
    kinds = [{"name": "code", "parted": parted}, {"name": "json"}]
    tied = Speculation.from_json({**costs, **known, "pays": True, "kinds": kinds}).sentence()
    assert "In 1 of 2 answers two tokens 0.004 nats apart change places" in tied
    far = [{"name": "code", "parted": {**parted, "gap": 1.25, "tie": False}}]
    wrong = Speculation.from_json({**costs, **known, "same": False, "kinds": far}).sentence()
    assert "other tokens" in wrong and "1.2 nats" in wrong


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "onnx:int8_sym_b32", "--speculate", "mtp"], "the last token alone"),
        (["--recipe", "openvino:int8_asym", "--speculate", "lookup"], "other tokens"),
        (["--recipe", "gguf:Q8_0", "--speculate", "mtp"], "has no heads"),
        (["--recipe", "gguf:Q8_0", "--speculate", "magic"], "magic"),
        (["--recipe", "gguf:Q8_0", "--speculate", "draft:"], "names no model"),
        (["--recipe", "gguf:Q8_0", "--speculate", "draft:Qwen3-0.6B"], "another vocabulary"),
        (["--recipe", "gguf:Q8_0", "--speculate", "draft:Qwen9"], "Qwen9"),
    ],
)
@pytest.mark.engine
def test_what_cannot_be_speculated_is_refused(
    flags: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = ["build", "--target", "laptop-cpu", "--weights", str(TINY), "--context", "256"]
    assert main([*target, *flags, "--offline", "--out", str(tmp_path / "p")]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.engine
def test_a_draft_that_does_not_fit_beside_the_model_is_refused() -> None:
    workload = replace(workload_for("chat"), context=256, max_memory_bytes=None)
    target, runtimes = registry.target("laptop-cpu"), registry.runtimes()
    plan = make_plan(target, workload, runtimes, weights=str(TINY), recipe="gguf:Q8_0")
    asked = parse(f"draft:{DRAFT}")
    both = speculating(plan, asked, runtimes)
    assert both.draft is not None and both.draft.as_dict()["recipe"] == "gguf:Q8_0"
    # One that needs an importance matrix, and a mixture of somebody else's, are not asked of it.
    other = replace(plan.chosen, recipe=replace(plan.chosen.recipe, weights="IQ2_XXS"))
    weighed = speculating(replace(plan, chosen=other), asked, runtimes)
    assert weighed.draft is not None and weighed.draft.recipe.startswith("gguf:Q")
    mixture = replace(plan.chosen, recipe=replace(plan.chosen.recipe, weights="mixed"))
    assert _recipe_beside(replace(plan, chosen=mixture), runtimes) is None
    peak = plan.chosen.footprint.peak
    tight = replace(plan, workload=replace(workload, max_memory_bytes=peak + 1))
    for refused, way_on in (
        (asked, "--speculate lookup"),
        (parse("lookup"), "leave --speculate out"),
    ):
        with pytest.raises(PackError, match="does not fit next to") as caught:
            speculating(tight, refused, runtimes)
        assert caught.value.exit_code is ExitCode.NOTHING_FITS and way_on in caught.value.hint


def test_auto_says_which_ways_do_not_fit_beside_the_model() -> None:
    workload = replace(workload_for("chat"), context=256)
    target, runtimes = registry.target("laptop-cpu"), registry.runtimes()
    plan = make_plan(
        target, workload, runtimes, model="Qwen3.5-0.8B", weights="dummy", recipe="gguf:Q4_K_M"
    )
    both = speculating(plan, parse("auto"), runtimes)
    assert not both.untried and "untried" not in both.as_dict()
    # What takes most of memory is the heads; lookup takes a few rows of logits.
    peak, beside = plan.chosen.footprint.peak, both.chosen.footprint.drafting
    assert beside is not None
    for limit, tried, left in (
        (peak + beside.total - 1, ("lookup",), ("mtp",)),
        (peak + 1, (), ("lookup", "mtp")),
    ):
        tight = replace(plan, workload=replace(workload, max_memory_bytes=limit))
        found = speculating(tight, parse("auto"), runtimes)
        assert found.speculate == tried and tuple(row.how for row in found.untried) == left
        assert found.heads is False and len(found.as_dict()["untried"]) == len(left)
        rows = [row.sentence() for row in found.untried]
        assert all("was not tried: it does not fit in addition to the model" in row for row in rows)
    none = Speculation.of_none(found.untried)
    assert none.sentence() == " ".join(rows)
    assert Speculation.from_json(none.to_json()) == none
    assert replace(settled(found, Verdict(none)), untried=()) == tight
    lookup = Speculation(how="lookup", decode_ms=1.0, speed_up=1.3, pays=True, acceptance=0.5)
    kept = speculation_stage.decide([lookup], None, found.untried[1:]).speculation
    assert kept.sentence().startswith("Prompt lookup pays") and rows[1] in kept.sentence()


def test_auto_takes_the_heads_where_a_variant_has_some() -> None:
    workload = replace(workload_for("chat"), context=256)
    target, runtimes = registry.target("laptop-cpu"), registry.runtimes()
    for name, ways in (("Qwen3.5-0.8B", ("lookup", "mtp")), ("Qwen3-0.6B", ("lookup",))):
        plan = make_plan(
            target, workload, runtimes, model=name, weights="dummy", recipe="gguf:Q4_K_M"
        )
        found = speculating(plan, parse("auto"), runtimes)
        assert found.speculate == ways and found.heads is ("mtp" in ways)
        assert found.shape.draft_layers == ("mtp" in ways)
        assert speculating(plan, parse("off"), runtimes) is plan
        beside = found.chosen.footprint.drafting
        assert beside is not None and bool(beside.weights) is ("mtp" in ways)
        alone = replace(found.chosen.footprint, drafting=None)
        assert found.chosen.footprint.peak == alone.peak + beside.total
        assert alone.peak == pytest.approx(plan.chosen.footprint.peak, rel=0.05)
        assert (found.chosen.artifact_bytes > plan.chosen.artifact_bytes) is ("mtp" in ways)
        # What does not pay leaves nothing in the plan.
        lost = Speculation(how="mtp", speed_up=0.9, same=True, pays=False)
        for verdict in (None, Verdict(lost)):
            assert replace(settled(found, verdict), speculate=()) == plan
        kept = settled(found, Verdict(lost.but(how=ways[-1], pays=True)))
        assert kept == found


def test_fit_proposes_drafts_of_the_same_vocabulary(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "fit",
        "--target",
        "laptop-32gb",
        "--model",
        "Qwen3-8B",
        "--recipe",
        "gguf:Q4_K_M",
        "--max-ttft-ms",
        "60000",
    ]
    assert main([*asked, "--steps", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    names = [row["variant"] for row in found["drafts"]]
    assert names[0] == "Qwen/Qwen3-0.6B" and len(names) <= 3
    assert all(name.startswith("Qwen/Qwen3-") for name in names)
    first = found["drafts"][0]
    assert 0 < first["break_even_at_least"] < 1 and first["memory_bytes"] > 400_000_000
    assert main([*asked, "--steps"]) == ExitCode.DONE
    assert "--speculate draft:Qwen3-0.6B" in capsys.readouterr().out
