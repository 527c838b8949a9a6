"""Where nothing fits, one paragraph names where the model would run, and the memory that takes
there."""

from __future__ import annotations

import tomllib
from typing import Any

from packager.catalog import find
from packager.select.elsewhere import FILE, Elsewhere, elsewhere
from tests.support.plain_runtime import GB, PlainRuntime, chat, fit, target


def test_the_smallest_known_device_that_passes_is_named_with_the_memory_it_takes_there() -> None:
    wish, small = chat(), target(1 * GB, recipes=("plain:b4",))
    found = fit(small, wish, "Qwen3-8B")
    larger = [(target(memory * GB, recipes=("plain:b4",)), wish) for memory in (256, 64, 3)]
    place = elsewhere(small, found, larger, [PlainRuntime()], named=True)
    assert place is not None and place.on is not None
    assert place.on.verdict == "chosen" and place.on.footprint.peak > 3 * GB and not place.on.coarse
    assert place.device == larger[1][0].name and str(place).startswith(
        "Where it would run: Qwen3-8B as plain:"
    )


def test_accelerators_are_counted_in_powers_of_two_for_unquantized_weights_and_the_cache() -> None:
    small = target(1 * GB, recipes=("plain:b4",))
    found = fit(small, chat(), "Qwen2.5-72B-Instruct")
    place = elsewhere(small, found, (), [PlainRuntime()], named=True)
    assert place is not None and place.on is None and "No device that is known here" in str(place)
    # 145.4 GB of weights: two cards of 80 GB, as the seeds' table of Qwen-72B has them, at nine
    # tenths of their memory.
    assert place.full_bytes > 2 * (find("Qwen2.5-72B-Instruct").params_total or 0)
    assert {one.name: one.count for one in place.accelerators} == {
        "RTX 3090": 8,
        "A100 80 GB": 2,
        "Ascend NPU of 64 GB": 4,
    }
    assert place.as_dict()["text"] == str(place)


def test_what_no_device_mends_has_no_such_paragraph() -> None:
    device = target(64 * GB, recipes=("plain:b4",))
    found = fit(device, chat(licenses=("mit",)), "Qwen3-8B", "Qwen3-4B")
    assert all(one.reasons for one in found)
    assert elsewhere(device, found, (), [PlainRuntime()]) is None


def test_every_place_has_a_source() -> None:
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    assert all(row["source"].strip() for row in (*data["accelerator"], *data["hosted"]))


def test_unquantized_it_has_the_cache_of_every_sequence_and_none_for_vectors() -> None:
    small = target(10**8, recipes=("plain:b4",))

    def place(name: str, **wish: Any) -> Elsewhere:
        found = fit(small, chat(**wish), name, runtimes=(Several(),))
        said = elsewhere(small, found, (), [Several()], named=True)
        assert said is not None
        return said

    weights = 2 * (find("Qwen3-0.6B").params_total or 0)
    alone, many = place("Qwen3-0.6B"), place("Qwen3-0.6B", parallel=64)
    assert many.full_bytes - weights == 64 * (alone.full_bytes - weights) > 0
    assert "a cache for 4096 tokens of each of 64 sequences) it takes " in str(many)
    vectors = place("Qwen3-Embedding-0.6B", use_case="embed")
    assert vectors.full_bytes == 2 * (find("Qwen3-Embedding-0.6B").params_total or 0)
    assert "Unquantized (BF16) it takes " in str(vectors)


class Several(PlainRuntime):
    """The same, whose packages answer several at once and make vectors."""

    answers_at_once = True
    retrieval_session = "tests.support.plain_runtime:NoSession"
