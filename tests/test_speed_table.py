"""How engines compare: every number has a source, a slip names file and key, and forecasts move the
right way."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager import catalog
from packager.device.target import Device
from packager.errors import ExitCode, PackError
from packager.predict.forecast import AS_RATED, Speed, predict_on
from packager.shape import Shape
from targets import registry
from targets.speed_table import Row, rows

GOOD = (
    '["4 bits"]\nbandwidth = 0.9\ncompute = 2\noperations_per_layer = 80\nattention = '
    '0.06\nsource = "docs/measurements/forecast.md"\n'
)
VNNI, PLAIN = "x86_64 avx2 avx512_vnni", "x86_64 avx2"


def shape_of(name: str) -> Shape:
    shape = catalog.find(name).shape
    assert shape is not None
    return shape


def device(operation_seconds: float | None = None) -> Device:
    return Device(
        16 * 10**9,
        0,
        None,
        VNNI,
        2,
        20e9,
        200e9,
        None,
        "measured",
        operation_seconds=operation_seconds,
    )


def test_a_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "speed.toml").write_text(GOOD)
    assert rows(tmp_path / "speed.toml") == {"4 bits": Row(0.9, 2.0, 80.0, 0.06)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bandwidth = 0.9", "bandwith = 0.9"),
        ("bandwidth = 0.9\n", ""),
        ("bandwidth = 0.9", "bandwidth = 0"),
        ("bandwidth = 0.9", "bandwidth = -1"),
        ("compute = 2", "compute = nan"),
        ("compute = 2", "compute = true"),
        ("compute = 2", "compute = '2'"),
        ("operations_per_layer = 80", "operations_per_layer = 1e30"),
        ('source = "docs/measurements/forecast.md"', 'source = ""'),
        ("attention = 0.06\n", ""),
        ("attention = 0.06", "attention = 1.1"),
        ("attention = 0.06", "attention = -0.1"),
        ("attention = 0.06", "attention = false"),
    ],
)
def test_a_slip_is_refused_with_file_and_table(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "speed.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(PackError, match=r"speed\.toml: 4 bits") as caught:
        rows(tmp_path / "speed.toml")
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("runtime", registry.runtimes(), ids=lambda one: one.name)
def test_every_recipe_of_every_runtime_has_a_speed(runtime: registry.Runtime) -> None:
    shape = shape_of("Qwen3-0.6B")
    for recipe in runtime.recipes():
        if runtime.obstacle(shape, recipe) is None:
            speed = runtime.speed(shape, recipe, VNNI)
            assert (
                0.3 < speed.bandwidth <= 1.2
                and 0.15 < speed.compute < 3
                and 0 < speed.operations < 10_000
            )


def test_q4_k_is_what_the_rates_of_a_device_are_about() -> None:
    (runtime,) = (one for one in registry.runtimes() if one.name == "llama.cpp")
    shape = shape_of("Qwen3-8B")
    speed = runtime.speed(shape, runtime.recipe("Q4_K_M"), PLAIN)
    assert (speed.bandwidth, speed.compute) == (1, pytest.approx(1, abs=0.02))
    assert runtime.speed(shape, runtime.recipe("Q8_0"), PLAIN).compute == pytest.approx(
        0.8, abs=0.02
    )


def test_rows_that_blocks_of_256_do_not_divide_make_a_slower_prompt_of_the_same_recipe() -> None:
    (runtime,) = (one for one in registry.runtimes() if one.name == "llama.cpp")
    small, large = (
        runtime.speed(shape_of(name), runtime.recipe("Q4_K_M"), PLAIN)
        for name in ("Qwen2.5-0.5B", "Qwen2.5-1.5B")
    )
    assert small.compute < 0.9 < large.compute


def test_openvino_is_ahead_only_where_the_processor_sums_products_of_bytes() -> None:
    (runtime,) = (one for one in registry.runtimes() if one.name == "openvino")
    shape, recipe = shape_of("Qwen3-0.6B"), runtime.recipe("int4_sym_g128")
    assert runtime.speed(shape, recipe, VNNI).compute > 1.5
    assert runtime.speed(shape, recipe, PLAIN).compute == 1


def test_small_operations_are_added_where_the_device_says_what_one_takes() -> None:
    (runtime,) = (one for one in registry.runtimes() if one.name == "llama.cpp")
    shape, recipe = shape_of("Qwen3-0.6B"), runtime.recipe("Q8_0")
    speed = runtime.speed(shape, recipe, VNNI)
    without = predict_on(shape, 10**9, 512, device(), speed)
    with_them = predict_on(shape, 10**9, 512, device(6e-6), speed)
    attention = 4 * 28 * 8 * 128 * 512 / (200e9 * speed.attention)
    assert without.decode_tps == pytest.approx(
        1 / (10**9 / (20e9 * speed.bandwidth) + attention), rel=1e-4
    )
    assert 1 / with_them.decode_tps - 1 / without.decode_tps == pytest.approx(
        speed.operations * 6e-6, rel=1e-3
    )
    assert predict_on(shape, 10**9, 512, device(6e-6), AS_RATED).decode_tps == 20


def test_the_attention_of_a_token_grows_with_the_keys_it_looks_back_on_where_an_engine_computes_it_slowly() -> (
    None
):
    shape = shape_of("Qwen3-0.6B")
    slow, bound_by_bytes = Speed(attention=0.05), Speed()
    short, long = (
        1 / predict_on(shape, 10**9, prompt, device(), slow).decode_tps for prompt in (1024, 8192)
    )
    assert long - short == pytest.approx(4 * 28 * 8 * 128 * 7168 / (200e9 * 0.05), rel=1e-3)
    assert predict_on(shape, 10**9, 8192, device(), bound_by_bytes).decode_tps == 20


def test_a_tower_of_eight_bits_gains_by_sums_of_eight_bit_products_as_the_decoder_does() -> None:
    runtime, shape = registry.runtime("openvino"), shape_of("Qwen3-VL-2B-Instruct")
    factors = [
        runtime.speed(shape, runtime.recipe(recipe), isa).tower
        for recipe, isa in (
            ("int4_sym_g128", VNNI),
            ("int8_asym", VNNI),
            ("int8_asym", PLAIN),
            ("bf16", VNNI),
        )
    ]
    assert factors == [1.95, 1.95, 1.0, 0.66]
