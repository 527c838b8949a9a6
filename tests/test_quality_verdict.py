"""What the gate says of figures: one limit missed is enough, what is never let through, and the
table of the limits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.quality import paper
from packager.quality.gate import Gate
from packager.quality.thresholds import grades, limits, tokens_for
from packager.quality.verdict import check, judged, skipped, summary
from packager.records import Contents, Misfit
from targets import registry
from tests.support.make_package import body, write_package
from tests.support.quality_facts import facts_with, refusal_of, verdict_of


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


def test_a_perplexity_that_is_no_number_is_no_sign_of_chance() -> None:
    from packager.quality.verdict import hardly_better_than_chance

    assert not hardly_better_than_chance(None, 100)
