"""The memory of fine-tuning against the tables that the first generation's publisher measured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from packager.catalog import find, load
from packager.predict.finetuning import METHODS, RANK, SPREAD, memory

DATA = tomllib.loads(
    (Path(__file__).parent / "golden" / "finetuning.toml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("row", DATA["row"], ids=lambda row: f"{row['model']}-{row['method']}")
def test_the_published_tables_are_met_within_fifteen_percent(row: dict[str, Any]) -> None:
    for sequence, stated in zip(DATA["sequences"], row["gb"], strict=False):
        shape = find(row["model"]).shape
        assert shape is not None
        found = memory(
            shape, row["method"], sequence=sequence, gpus=row.get("gpus", 1), split=row.get("zero3")
        )
        error = found.each * found.gpus / 1e9 / stated - 1
        assert abs(error) < (0.17 if sequence in row.get("explained", ()) else SPREAD), (
            f"{sequence}: {error:+.1%}"
        )


def test_the_adapters_of_the_first_generation_are_counted_as_its_script_makes_them() -> None:
    # c_attn, c_proj of attention and of the feed-forward part, w1 and w2, in each of 32 layers.
    shape = find("Qwen-7B-Chat").shape
    assert shape is not None
    inner = 64 * (4096 + 3 * 4096) + 64 * 2 * 4096 + 3 * 64 * (4096 + 11008)
    assert RANK == 64 and memory(shape, "lora").trained == 32 * inner


def test_every_variant_with_a_shape_has_a_figure_for_every_method_in_order_of_what_it_trains() -> (
    None
):
    for shape in {variant.shape for variant in load() if variant.shape is not None}:
        found = {method: memory(shape, method) for method in METHODS}
        assert found["qlora"].each < found["lora"].each < found["lora-emb"].each
        assert found["lora-emb"].trained > found["lora"].trained > 0
        parts = found["full"].as_dict()["components"]
        assert sum(parts.values()) == found["full"].each


def test_only_lora_and_full_share_their_weights_and_what_a_method_cannot_do_is_said() -> None:
    shape = find("Qwen-72B-Chat").shape
    assert shape is not None
    assert [memory(shape, method, gpus=4, split=True).split for method in METHODS] == [
        True,
        False,
        False,
        True,
    ]
    assert "not merged" in memory(shape, "qlora").notes[0]
    assert any("ZeRO-3 cannot" in note for note in memory(shape, "lora-emb").notes)
    assert (
        memory(shape, "lora", gpus=4, split=True).each < 72e9 < memory(shape, "lora", gpus=4).each
    )
