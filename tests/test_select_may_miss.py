"""A forecast that misses a limit while its range reaches it rejects nothing, but stands behind what
meets it."""

from __future__ import annotations

from dataclasses import replace

from packager import catalog
from packager.errors import PackError
from packager.need.workload import Workload, merge
from packager.predict.forecast import Forecast
from packager.recipe import Recipe
from packager.select import Candidate, candidates, choose, speed_rules
from packager.shape import Shape
from targets import registry
from tests.support.plain_runtime import GB, PlainRuntime, chat, fit, target

SLOW = Forecast(100, 5, 9000, 4, 8, "estimated", 60, 140, 7000, 12000)


def test_a_rate_is_rejected_only_where_the_whole_range_lies_below_it() -> None:
    for floor, rejected, may in ((4.5, 0, 0), (7.0, 0, 1), (9.0, 1, 0)):
        wish = Workload(min_decode_tps=floor)
        surely = list(speed_rules.of_speed(SLOW, wish))
        assert len(surely) == rejected
        assert len(list(speed_rules.may_miss(SLOW, wish, surely))) == may


def test_a_wait_is_rejected_only_where_the_whole_range_lies_above_the_limit() -> None:
    for limit, rejected, may in ((9500.0, 0, 0), (8000.0, 0, 1), (6000.0, 1, 0)):
        wish = Workload(max_ttft_ms=limit)
        surely = list(speed_rules.of_speed(SLOW, wish))
        assert len(surely) == rejected
        assert len(list(speed_rules.may_miss(SLOW, wish, surely))) == may


def test_vectors_and_scores_must_come_at_the_rate_and_in_the_time_asked_for() -> None:
    texts, query = SLOW.documents_per_second(512), SLOW.text_ms(speed_rules.QUERY_TOKENS)
    assert texts.low < texts.value < texts.high and query.low < query.value < query.high
    for wish, (rejected, may) in (
        (Workload(documents_per_second=texts.value * 0.99), (0, 0)),
        (Workload(documents_per_second=texts.high * 0.99), (0, 1)),
        (Workload(documents_per_second=texts.high * 1.01), (1, 0)),
        (Workload(query_ms=query.value * 1.01), (0, 0)),
        (Workload(query_ms=query.low * 1.01), (0, 1)),
        (Workload(query_ms=query.low * 0.99), (1, 0)),
    ):
        surely = list(speed_rules.of_speed(SLOW, wish))
        assert len(surely) == rejected, wish
        assert len(list(speed_rules.may_miss(SLOW, wish, surely))) == may, wish


def test_what_may_be_missed_says_by_how_much() -> None:
    wish = Workload(min_decode_tps=7.0, max_ttft_ms=8000.0)
    rate, wait = speed_rules.may_miss(SLOW, wish, ())
    assert str(rate) == "decode: needs 7 tok/s, has 5 tok/s, between 4 and 8"
    assert str(wait) == "ttft: needs 8000 ms, has 9000 ms for 512 tokens, between 7000 and 12000 ms"
    assert (rate.needs_value, rate.has_value) == (7.0, 5)


def test_what_may_miss_a_limit_is_chosen_only_where_nothing_meets_it_for_sure() -> None:
    device = target(64 * GB, recipes=("plain:b4",))
    (small, *_), (large, *_) = (fit(device, chat(), name) for name in ("Qwen3-4B", "Qwen3-8B"))
    # The smaller one meets a floor that the larger one's range just reaches.
    floor = large.forecast.high * 0.99
    assert large.forecast.decode_tps < floor < small.forecast.decode_tps
    between = fit(
        device,
        chat(min_decode_tps=floor, prefer="quality"),
        "Qwen3-8B",
        "Qwen3-4B",
        recipe="plain:b4",
    )
    assert [(one.variant.name, one.verdict) for one in between] == [
        ("Qwen3-4B", "chosen"),
        ("Qwen3-8B", "may miss"),
    ]
    alone = choose(fit(device, chat(min_decode_tps=floor), "Qwen3-8B", recipe="plain:b4"))
    assert alone is not None and alone.may_miss and alone.passes and not alone.sure
    assert alone.as_dict()["may_miss"][0]["rule"] == "decode"


def test_a_class_of_laptops_rejects_a_wait_only_by_its_range() -> None:
    """10,334 ms against 10,000 once rejected Qwen3-4B-Instruct-2507 on a number without a range."""
    device = registry.target("laptop-cpu")
    wish = merge({"use_case": "chat"}, device.workload)

    def ask(limit: float) -> Candidate:
        return candidates(
            device,
            replace(wish, max_ttft_ms=limit),
            (catalog.find("Qwen3-4B-Instruct-2507"),),
            registry.runtimes(),
            recipe="gguf:Q4_K_M",
        )[0]

    now = ask(1e9).forecast
    assert ask(10_334).passes and now.ttft_low_ms < 10_000
    for limit, passes, sure in (
        (1.01 * now.ttft_ms, True, True),
        (0.99 * now.ttft_ms, True, False),
        (1.01 * now.ttft_low_ms, True, False),
        (0.99 * now.ttft_low_ms, False, False),
    ):
        found = ask(limit)
        assert (found.passes, found.passes and found.sure) == (passes, sure), limit


def test_a_recipe_that_cannot_be_sized_is_rejected_and_the_others_are_not() -> None:
    class Gaps(PlainRuntime):
        def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
            if recipe.weights == "b8":
                raise PackError("No layout of 8 bits is known.")
            return super().artifact_bytes(shape, recipe)

    found = fit(
        target(64 * GB, recipes=("plain:b4",)),
        chat(prefer="quality"),
        "Qwen3-4B",
        runtimes=[Gaps()],
    )
    assert choose(found) is not None
    (unsized,) = (one for one in found if one.recipe.weights == "b8")
    assert (unsized.verdict, unsized.sized) == ("rejected", False)
    assert unsized.reasons[0].has == "No layout of 8 bits is known"
