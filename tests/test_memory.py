"""Bytes of the cache, the recurrent state and the logits: exact for shapes that are known, sensible
for all others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.predict.memory import (
    KV_BITS,
    Footprint,
    kv_bits,
    kv_cache_bytes,
    logits_bytes,
    recurrent_state_bytes,
)
from packager.shape import Hybrid, Shape

MIB = 2**20
TEXT_SHAPES = [variant.shape for variant in catalog.load() if variant.shape is not None]


def shape_of(name: str) -> Shape:
    shape = catalog.find(name).shape
    assert shape is not None
    return shape


@pytest.mark.parametrize(
    ("name", "context", "kind", "mib"),
    [
        # 2 x layers x kv_heads x head_dim x context x bits / 8, from each config.json.
        ("Qwen3-0.6B", 4096, "f16", 448),
        ("Qwen3-0.6B", 4096, "q8_0", 238),
        ("Qwen3-0.6B", 4096, "q4_0", 126),
        ("Qwen2.5-0.5B-Instruct", 32768, "f16", 384),
        ("Qwen2.5-7B-Instruct", 4096, "f16", 224),
        ("Qwen1.5-0.5B-Chat", 4096, "f16", 384),
        ("Qwen3-30B-A3B", 4096, "f16", 384),
    ],
)
def test_the_cache_of_a_known_variant_is_exact(
    name: str, context: int, kind: str, mib: int
) -> None:
    assert kv_cache_bytes(shape_of(name), context, kv_bits(kind)) == mib * MIB


def test_head_dim_is_the_configs_own_and_not_hidden_by_heads() -> None:
    shape = shape_of("Qwen3-0.6B")
    assert shape.hidden // shape.heads == 64
    assert kv_cache_bytes(shape, 1) == 2 * 28 * 8 * 128 * 2


def test_of_a_hybrid_only_every_fourth_layer_keeps_a_cache_beside_a_fixed_state() -> None:
    shape = shape_of("Qwen3-Next-80B-A3B-Instruct")
    assert shape.hybrid == Hybrid(4, 16, 32, 128, 128, 4)
    # 36 layers: 32 heads of 128 x 128, and 3 inputs of 2 x 16 x 128 + 32 x 128 channels, in
    # float32.
    state = 36 * (32 * 128 * 128 + 3 * 8192) * 4
    assert recurrent_state_bytes(shape) == state
    assert kv_cache_bytes(shape, 4096) == 2 * 12 * 2 * 256 * 4096 * 2 + state
    assert kv_cache_bytes(shape, 0) == state


def test_a_shape_without_recurrent_layers_keeps_no_state() -> None:
    assert recurrent_state_bytes(shape_of("Qwen3-0.6B")) == 0


@given(
    st.sampled_from(TEXT_SHAPES),
    st.integers(0, 2**20),
    st.integers(1, 4096),
    st.sampled_from(sorted(KV_BITS)),
)
def test_a_longer_context_never_takes_less(
    shape: Shape, context: int, more: int, kind: str
) -> None:
    assert kv_cache_bytes(shape, context, kv_bits(kind)) < kv_cache_bytes(
        shape, context + more, kv_bits(kind)
    )


@given(st.sampled_from(TEXT_SHAPES), st.integers(1, 2**20))
def test_a_smaller_cache_type_never_takes_more(shape: Shape, context: int) -> None:
    sizes = [
        kv_cache_bytes(shape, context, kv_bits(kind))
        for kind in ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
    ]
    assert sizes == sorted(sizes, reverse=True)


@given(st.sampled_from(TEXT_SHAPES), st.integers(0, 2**16), st.integers(0, 2**16))
def test_the_part_that_grows_grows_by_the_token(shape: Shape, one: int, two: int) -> None:
    state = recurrent_state_bytes(shape)
    assert (
        kv_cache_bytes(shape, one) + kv_cache_bytes(shape, two)
        == kv_cache_bytes(shape, one + two) + state
    )


def test_an_unknown_cache_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(PackError, match="'q8_0'") as caught:
        kv_bits("q8")
    assert caught.value.exit_code == ExitCode.USAGE


def test_logits_of_a_batch_take_four_bytes_per_word_of_the_vocabulary() -> None:
    assert logits_bytes(shape_of("Qwen3-0.6B"), 512) == 151_936 * 512 * 4


@given(*[st.integers(0, 2**50)] * 5)
def test_the_peak_of_a_footprint_is_the_larger_of_running_and_loading(
    weights: int, cache: int, compute: int, overhead: int, load: int
) -> None:
    footprint = Footprint(weights, cache, compute, overhead, load)
    assert footprint.total == weights + cache + compute + overhead
    assert footprint.peak == max(footprint.total, load)
    assert footprint.as_dict()["peak"] == footprint.peak
