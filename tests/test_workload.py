"""Workloads: what a use case asks, what a target changes of it, what the user says in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.catalog import scores
from packager.errors import ExitCode, PackError
from packager.need.usecases import FILE, benchmark, benchmarks, parse, use_case, use_case_names
from packager.need.workload import Workload, merge, workload_for

ASKED = (
    "chat",
    "assistant",
    "code",
    "maths",
    "reasoning",
    "multilingual",
    "long-documents",
    "retrieval",
    "classification",
    "vision",
    "audio",
    "embed",
    "rerank",
)

SMALL = """
[benchmark]
"IFEval" = "instructions obeyed"

[chat]
summary = "a conversation"
kinds = ["general"]
modes = ["non-thinking"]
modality = ["text"]
quality = ["IFEval"]
context = { value = 4096, reason = "why", source = "where" }
prompt = { value = 512, reason = "why", source = "where" }

[[chat.floor]]
any_of = [{ benchmark = "IFEval", score = 50.0 }]
reason = "why"
source = "where"
"""


def test_every_use_case_that_people_have_is_there() -> None:
    assert use_case_names() == ASKED


@pytest.mark.parametrize("name", ASKED)
def test_every_number_of_a_use_case_has_a_reason_and_a_source(name: str) -> None:
    case = use_case(name)
    given = [
        limit
        for limit in (
            case.context,
            case.prompt,
            case.min_decode_tps,
            case.max_ttft_ms,
            *case.floors,
        )
        if limit is not None
    ]
    assert len(given) >= 3
    assert all(len(entry.reason) > 10 and len(entry.source) > 10 for entry in given)


@pytest.mark.parametrize("name", ASKED)
def test_a_floor_asks_only_for_what_somebody_published(name: str) -> None:
    published = {
        score.benchmark
        for variant in catalog.load()
        if variant.chat
        for score in scores(variant.repo_id)
    }
    for floor in use_case(name).floors:
        assert published & {benchmark for benchmark, _ in floor.any_of}
    assert set(use_case(name).quality) <= published


@pytest.mark.parametrize("name", [name for name in ASKED if use_case(name).task != "generate"])
def test_the_floor_of_a_use_case_that_gives_no_text_passes_every_published_variant(
    name: str,
) -> None:
    from packager.select import rules

    case = use_case(name)
    tuned = [
        variant
        for variant in catalog.load()
        if variant.kind in case.kinds and variant.unbuildable is None
    ]
    assert len(tuned) == 3
    for variant in tuned:
        assert not any(list(rules.score(variant, floor, case.modes)) for floor in case.floors)


@pytest.mark.parametrize(
    "name",
    [name for name in ASKED if name != "audio" and use_case(name).task == "generate"],
)
def test_the_floors_of_a_use_case_pass_some_variants_and_stop_others(name: str) -> None:
    from packager.select import rules

    case = use_case(name)
    tuned = [variant for variant in catalog.load() if variant.chat and variant.kind in case.kinds]
    failing = [
        variant
        for variant in tuned
        if any(list(rules.score(variant, floor, case.modes)) for floor in case.floors)
    ]
    assert 0 < len(failing) < len(tuned)


def test_the_chat_floor_lies_between_qwen2_5_0_5b_and_qwen3_0_6b_because_it_is_one_half() -> None:
    ((name, least),) = use_case("chat").floors[0].any_of
    assert (name, least) == ("IFEval", 50.0)


def test_a_use_case_file_is_read_whole() -> None:
    cases, known = parse(SMALL, "small.toml")
    assert cases["chat"].floors[0].any_of == (("IFEval", 50.0),)
    assert cases["chat"].min_decode_tps is None and known == {"IFEval": "instructions obeyed"}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('summary = "a', 'sumary = "a', r"chat\.sumary is not a known key. Did you mean 'summary'"),
        ('summary = "a conversation"', "", r"chat\.summary is missing"),
        ('"general"', '"genral"', r"chat\.kinds has 'genral'.*'general'"),
        ('modality = ["text"]', 'modality = "text"', r"chat\.modality must be a list"),
        (
            'benchmark = "IFEval"',
            'benchmark = "IFEvil"',
            r"names 'IFEvil', which is not in \[benchmark\]. Did you mean 'IFEval'",
        ),
        ("score = 50.0", 'score = "50"', r"chat\.floor\.any_of\.score must be a number"),
        ("value = 4096", "value = 4096.5", r"chat\.context\.value must be a whole number"),
        (
            "value = 4096",
            "value = -1",
            r"chat\.context\.value must be a whole number above zero, not -1",
        ),
        ("value = 4096", "value = true", r"chat\.context\.value must be a whole number"),
        ("value = 512", "value = 4096", r"chat\.prompt must be smaller than the context"),
        (
            '{ value = 512, reason = "why", source = "where" }',
            '{ value = 512, reason = "why" }',
            r"chat\.prompt has no source",
        ),
        (
            "any_of = [{ benchmark",
            "any_off = [{ benchmark",
            r"chat\.floor\.any_off is not a known key",
        ),
        ("[chat]", "[chat", "this is not TOML"),
        ('"IFEval" = "instructions obeyed"', '"IFEval" = 5', "benchmark must be a table"),
    ],
)
def test_a_mistake_in_a_use_case_names_file_and_key(old: str, new: str, part: str) -> None:
    assert old in SMALL
    with pytest.raises(PackError, match=r"^small\.toml: .*" + part) as caught:
        parse(SMALL.replace(old, new, 1), "small.toml")
    assert caught.value.exit_code == ExitCode.USAGE


@given(st.data())
def test_a_use_case_file_that_was_cut_is_read_or_refused_with_a_sentence(
    data: st.DataObject,
) -> None:
    text = FILE.read_text(encoding="utf-8")
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        parse(cut, "cut.toml")
    except PackError as error:
        assert error.message.startswith("cut.toml: ")


def test_a_benchmark_is_known_whatever_its_case() -> None:
    assert benchmark("ifeval") == "IFEval" and "IFEval" in benchmarks()
    with pytest.raises(PackError, match="Did you mean 'IFEval'"):
        benchmark("ifevil")


def test_an_unknown_use_case_is_refused_with_the_nearest() -> None:
    with pytest.raises(PackError, match="Did you mean 'chat'") as caught:
        workload_for("chta")
    assert caught.value.exit_code == ExitCode.USAGE


# Flags over the target's default over the use case's


def test_without_flags_and_target_it_is_a_chat_as_the_use_case_asks() -> None:
    assert merge({}, None) == workload_for("chat")


def test_a_flag_stands_over_the_target_and_the_target_over_the_use_case() -> None:
    device = Workload(use_case="chat", context=2048, prompt=256, min_decode_tps=3.0)
    merged = merge({"context": 8192}, device)
    assert (merged.context, merged.prompt, merged.min_decode_tps) == (8192, 256, 3.0)
    assert merged.max_ttft_ms == workload_for("chat").max_ttft_ms


def test_another_use_case_than_the_targets_brings_its_own_needs_and_leaves_the_devices_limits() -> (
    None
):
    device = Workload(
        use_case="chat",
        context=2048,
        min_decode_tps=3.0,
        max_memory_bytes=10**9,
        licenses=("apache-2.0",),
        prefer="quality",
    )
    merged = merge({"use_case": "code"}, device)
    own = workload_for("code")
    assert (merged.context, merged.min_decode_tps) == (own.context, own.min_decode_tps)
    assert (merged.max_memory_bytes, merged.licenses, merged.prefer) == (
        10**9,
        ("apache-2.0",),
        "quality",
    )


def test_a_short_context_shortens_the_prompt_that_nobody_set() -> None:
    assert merge({"context": 256}, None).prompt == 128


def test_a_prompt_that_fills_the_context_is_a_contradiction() -> None:
    with pytest.raises(PackError, match="leaves no room for an answer") as caught:
        merge({"context": 1024, "prompt": 1024}, None)
    assert caught.value.exit_code == ExitCode.USAGE


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "use_case": st.sampled_from(ASKED),
            "context": st.integers(16, 2**24),
            "min_decode_tps": st.floats(0, 1e6),
            "max_ttft_ms": st.floats(1, 1e9),
            "licenses": st.tuples(st.sampled_from(["apache-2.0", "any"])),
            "prefer": st.sampled_from(["smallest", "quality", "speed", "balanced"]),
        },
    ),
    st.none()
    | st.builds(
        lambda name, context: replace(workload_for(name), context=context),
        st.sampled_from(ASKED),
        st.integers(2**15, 2**20),
    ),
)
def test_what_the_user_says_always_holds(flags: dict[str, Any], default: Workload | None) -> None:
    case = flags.get("use_case") or (default.use_case if default else "chat")
    if use_case(case).task != "generate" and flags.get("min_decode_tps"):
        with pytest.raises(PackError, match="gives no answers, so --min-decode-tps"):
            merge(flags, default)
        return
    merged = merge(flags, default)
    assert all(getattr(merged, key) == value for key, value in flags.items())
    assert merged.prompt < merged.context
