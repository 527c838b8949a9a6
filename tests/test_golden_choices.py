"""Golden answers: what `fit` chooses is what was reviewed, and the table keeps the rules that an
engineer would hold it to."""

from __future__ import annotations

import pytest

from benchmarks.choices import DEVICES, NOTHING, PREFERENCES, answers, read
from packager import catalog
from packager.need.usecases import benchmarks, use_case, use_case_names
from packager.select.rules import score
from packager.select.stand_ins import stand_in
from tests.support.tiers import thorough

TABLE = read()
ARM = ("raspberry-pi-5-8gb", "android-8gb")
# The whole table takes a quarter of a minute: `python benchmarks/choices.py` compares it all.
CHECKED = ("chat", *map(thorough, ("assistant", "code", "reasoning")), "vision", "audio")


def test_the_table_has_a_reason_for_every_use_case_of_text_device_and_preference() -> None:
    asked = {
        (case, device, prefer)
        for case in use_case_names()
        if use_case(case).task == "generate"
        for device in DEVICES
        for prefer in PREFERENCES
    }
    assert {row.question for row in TABLE} == asked and len(TABLE) == len(asked) == 396
    assert all(len(row.reason) > 20 for row in TABLE)


@pytest.mark.parametrize("case", CHECKED)
def test_the_answers_are_those_that_were_reviewed(case: str) -> None:
    now = {row.question: row.answer for row in answers((case,), DEVICES)}
    assert now == {row.question: row.answer for row in TABLE if row.use_case == case}


def test_nobody_waits_for_thinking_where_a_conversation_was_asked_for() -> None:
    always = {variant.name for variant in catalog.load() if variant.thinking == "always"}
    assert not [
        row for row in TABLE if row.variant in always and row.use_case in ("chat", "assistant")
    ]
    assert not [
        row
        for row in TABLE
        if row.variant in always and use_case(row.use_case).modes == ("non-thinking",)
    ]


def test_what_thinks_never_is_not_taken_for_reasoning() -> None:
    thinking = {variant.name: variant.thinking for variant in catalog.load()}
    assert all(
        thinking[row.variant] != "never"
        for row in TABLE
        if row.use_case == "reasoning" and row.variant != NOTHING
    )


def test_no_newer_variant_is_passed_over_for_a_number_that_is_missing() -> None:
    """Qwen3.6 and Qwen3.8 have no published LiveCodeBench, MMMU or DocVQA: smaller ones before them
    have."""
    newer = [catalog.find(name) for name in ("Qwen3.6-27B", "Qwen3.8-27B", "Qwen3.6-35B-A3B")]
    older = catalog.find("Qwen3.5-9B")
    for case in map(use_case, ("code", "vision")):
        assert not [
            reason
            for variant in newer
            for floor in case.floors
            for reason in score(variant, floor, case.modes)
        ], case.name
    instead = [stand_in(one, "LiveCodeBench v5", ("non-thinking", "thinking")) for one in newer]
    known = stand_in(older, "LiveCodeBench v5", ("non-thinking", "thinking"))
    assert known is not None
    assert all(one is not None and one.value >= known.value for one in instead)


def test_of_equal_variants_the_newest_is_taken() -> None:
    newest, older = (catalog.find(name).release_date for name in ("Qwen3.8-27B", "Qwen3.6-27B"))
    assert newest is not None and older is not None and newest > older
    taken = {row.variant for row in TABLE if row.device == "rtx-4090" and row.prefer == "quality"}
    assert "Qwen3.8-27B" in taken and "Qwen3.6-27B" not in taken


def test_speed_on_arm_takes_what_is_repacked_there() -> None:
    fast = [
        row
        for row in TABLE
        if row.device in ARM and row.prefer == "speed" and row.variant != NOTHING
    ]
    assert fast and {row.recipe for row in fast} == {"gguf:Q4_0"}


def test_nothing_is_chosen_in_three_bits_or_fewer_where_something_finer_fits() -> None:
    assert not [
        row
        for row in TABLE
        if "Q3_" in row.recipe or "Q2_" in row.recipe or "IQ3" in row.recipe or "IQ2" in row.recipe
    ]


def test_an_npu_gets_weights_without_zero_points() -> None:
    assert not [row for row in TABLE if row.device.endswith("npu") and "asym" in row.recipe]


def test_the_best_quality_is_never_below_that_of_another_preference() -> None:
    scored = {}
    for row in TABLE:
        if "quality " in row.reason:
            scored[row.question] = float(row.reason.rpartition("quality ")[2].partition(";")[0])
    for (case, device, prefer), value in scored.items():
        best = scored.get((case, device, "quality"))
        # Half points, and what a quantization takes, may stand between them.
        assert best is None or value <= best + 2, (case, device, prefer)


def test_what_stands_for_a_score_is_one_that_the_benchmark_can_give() -> None:
    """Also where the mode makes more of a difference than the variant has points."""
    modes = (("non-thinking",), ("thinking",), ("thinking", "non-thinking"))
    found = [
        instead.value
        for variant in catalog.load()
        for benchmark in benchmarks()
        for mode in modes
        if (instead := stand_in(variant, benchmark, mode)) is not None
    ]
    assert len(found) > 500 and all(0 <= value <= 100 for value in found)
