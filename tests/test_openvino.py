"""The OpenVINO adapter before any engine is loaded: recipes, arithmetic, obstacles."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.predict.memory import kv_cache_bytes
from packager.runtime import Runtime
from packager.shape import Experts, Shape
from targets.openvino import OpenVino, data, sizes
from targets.openvino.sizes import Storage, fitting_group

# Source: config.json of Qwen/Qwen2.5-0.5B-Instruct and Qwen/Qwen3-0.6B.
HALF_B = Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True, True, False, 32768)
SIX_TENTHS_B = Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True, False, True, 40960)
MIXTURE = Shape(
    "qwen3_moe",
    2048,
    48,
    32,
    4,
    128,
    6144,
    151936,
    False,
    False,
    True,
    40960,
    experts=Experts(128, 8, 768),
)
RECIPES = [recipe.weights for recipe in OpenVino().recipes()]
runtime = OpenVino()


def test_it_is_a_runtime_of_the_contract() -> None:
    assert isinstance(runtime, Runtime)
    assert (runtime.name, runtime.prefix, runtime.extra) == ("openvino", "openvino", "openvino")


def test_importing_it_imports_no_engine_and_no_numpy() -> None:
    code = (
        "import sys, targets.openvino as o; o.OpenVino().recipes(); print(*{n.partition('.')[0] "
        "for n in sys.modules})"
    )
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert loaded.isdisjoint(
        {"openvino", "openvino_genai", "optimum", "nncf", "torch", "transformers", "numpy"}
    )


def test_the_recipes_are_listed_best_quality_first_with_the_default_cache() -> None:
    assert [
        *("bf16", "int8_asym", "int8_sym", "q8_0", "q4_0"),
        *("int4_asym_g64", "int4_sym_g64", "int4_asym_g64_head4"),
        *("int4_asym_g128", "int4_sym_g128"),
    ] == RECIPES
    assert {recipe.kv for recipe in runtime.recipes()} == {"u8"}
    assert runtime.recipe("int4_sym_g128").id == "openvino:int4_sym_g128"


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("int4")])
def test_a_4_bit_recipe_says_every_setting_of_the_compression(name: str) -> None:
    settings = runtime.recipe(name).settings["compression"]
    stated = {
        "bits",
        "sym",
        "group_size",
        "group_size_fallback",
        "ratio",
        "all_layers",
        "backup_precision",
        "sensitivity_metric",
    }
    assert stated | {"quant_method", "scale_estimation", "gptq", "lora_correction"} == set(settings)
    head = "_head4" if settings["all_layers"] else ""
    assert name == f"int4_{'sym' if settings['sym'] else 'asym'}_g{settings['group_size']}{head}"


def test_another_cache_type_changes_the_id_and_nothing_of_the_weights() -> None:
    recipe = runtime.recipe("int8_asym", "f16")
    assert (recipe.id, recipe.kv_bits) == ("openvino:int8_asym/kv_f16", 16.0)
    assert recipe.settings == runtime.recipe("int8_asym").settings
    assert runtime.recipe("int8_asym", "u8") == runtime.recipe("int8_asym")


@pytest.mark.parametrize(
    ("weights", "kv", "meant"),
    [
        ("int4_sym_128", None, "'int4_sym_g128'"),
        ("INT8", None, "'int8_sym'"),
        ("bf16", "u4", "'u8'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    weights: str, kv: str | None, meant: str
) -> None:
    with pytest.raises(PackError) as refused:
        runtime.recipe(weights, kv)
    assert refused.value.exit_code is ExitCode.USAGE
    assert "Did you mean" in refused.value.message and meant in refused.value.message


def test_a_model_that_the_exporter_cannot_take_is_named() -> None:
    recipe = runtime.recipe("int8_asym")
    assert (
        runtime.obstacle(HALF_B, recipe)
        is runtime.obstacle(SIX_TENTHS_B, recipe)
        is runtime.obstacle(MIXTURE, recipe)
        is None
    )
    assert "qwen3_next" in (
        runtime.obstacle(replace(SIX_TENTHS_B, model_type="qwen3_next"), recipe) or ""
    )


@given(st.integers(1, 1 << 16), st.sampled_from([32, 64, 128]))
def test_a_group_divides_the_row_and_is_no_wider_than_asked_unless_a_power_of_two_is(
    columns: int, wanted: int
) -> None:
    group = fitting_group(columns, wanted)
    if group is None:
        assert columns % 32
    else:
        assert columns % group == 0 and (group == wanted or group & (group - 1) == 0)


@given(st.integers(1, 4096), st.integers(1, 64), st.sampled_from([64, 128]))
def test_zero_points_cost_half_a_byte_per_group_at_4_bits(
    rows: int, groups: int, group: int
) -> None:
    plain, with_zeros = (
        Storage(4, group, zeros).bytes(rows, groups * group) for zeros in (False, True)
    )
    assert plain == rows * groups * (group // 2 + 2)
    assert with_zeros - plain == ceil(rows * groups / 2)


# Sizes of openvino_model.bin and .xml as built, see docs/measurements/openvino.md.
BUILT = [
    (HALF_B, "int4_asym_g64_head4", 266_333_534, 2_493_442),
    (SIX_TENTHS_B, "bf16", 1_191_971_598, 2_444_161),
    (SIX_TENTHS_B, "int4_sym_g128", 383_123_422, 2_875_167),
]

# Norms of ones are left out of these graphs, so they are up to a fiftieth smaller than counted.
BUILT_OF_BLOCKS = [
    (SIX_TENTHS_B, "q8_0", 638_292_596, 2_692_627),
    (SIX_TENTHS_B, "q4_0", 417_993_332, 2_692_571),
]

# Of optimum-intel's graphs the weights alone: they are the same.
WEIGHTS = [
    (HALF_B, "int4_sym_g128", 321_150_541),
    (HALF_B, "int4_asym_g128", 322_548_301),
    (HALF_B, "int8_asym", 495_385_101),
    (SIX_TENTHS_B, "int8_asym", 597_472_909),
]


@pytest.mark.parametrize(("shape", "name", "weights"), WEIGHTS)
def test_the_weights_of_a_true_shape_agree_with_what_was_built(
    shape: Shape, name: str, weights: int
) -> None:
    assert sizes.totals(
        shape, runtime.recipe(name).settings["compression"]
    ).stored == pytest.approx(weights, rel=5e-4)


@pytest.mark.parametrize(("shape", "name", "weights", "graph"), BUILT_OF_BLOCKS)
def test_the_size_of_ggmls_blocks_agrees_with_what_was_built(
    shape: Shape, name: str, weights: int, graph: int
) -> None:
    compression = runtime.recipe(name).settings["compression"]
    assert sizes.totals(shape, compression).stored == pytest.approx(weights, rel=5e-4)
    assert data.costs().graph_bytes(shape, compression) == pytest.approx(graph, rel=0.02)


@pytest.mark.parametrize(("shape", "name", "weights", "graph"), BUILT)
def test_the_size_of_a_true_shape_agrees_with_what_was_built(
    shape: Shape, name: str, weights: int, graph: int
) -> None:
    compression = runtime.recipe(name).settings["compression"]
    assert sizes.totals(shape, compression).stored == pytest.approx(weights, rel=5e-4)
    assert data.costs().graph_bytes(shape, compression) == pytest.approx(graph, rel=5e-3)


# Peak resident bytes with the whole context filled, see docs/measurements/openvino.md.
MEASURED = [
    (HALF_B, "int4_sym_g128", "u8", 512, 883_486_720),
    (HALF_B, "int4_sym_g128", "u8", 4096, 914_604_032),
    (HALF_B, "int4_sym_g128", "f16", 2048, 907_808_768),
    (HALF_B, "int4_asym_g64_head4", "u8", 512, 828_755_968),
    (HALF_B, "int8_asym", "u8", 512, 1_217_622_016),
    (HALF_B, "bf16", "u8", 512, 2_188_177_408),
    (SIX_TENTHS_B, "int4_sym_g128", "u8", 512, 1_050_025_984),
    (SIX_TENTHS_B, "int4_sym_g128", "u8", 4096, 1_316_171_776),
    (SIX_TENTHS_B, "int4_sym_g128", "f16", 2048, 1_262_366_720),
    (SIX_TENTHS_B, "int8_asym", "u8", 512, 1_464_864_768),
    (SIX_TENTHS_B, "int4_asym_g64", "u8", 1024, 1_144_238_080),
    (SIX_TENTHS_B, "bf16", "u8", 512, 2_641_309_696),
    (SIX_TENTHS_B, "bf16", "u8", 4096, 2_910_642_176),
    (SIX_TENTHS_B, "q8_0", "u8", 512, 1_696_129_024),
    (SIX_TENTHS_B, "q4_0", "u8", 512, 1_239_166_976),
]


@pytest.mark.parametrize(("shape", "name", "kv", "context", "peak"), MEASURED)
def test_the_footprint_agrees_with_what_was_measured(
    shape: Shape, name: str, kv: str, context: int, peak: int
) -> None:
    assert runtime.footprint(shape, runtime.recipe(name, kv), context).peak == pytest.approx(
        peak, rel=0.011
    )


@given(st.integers(1, 32768), st.integers(1, 4096), st.sampled_from(RECIPES))
def test_a_longer_context_never_takes_less(context: int, more: int, name: str) -> None:
    recipe = runtime.recipe(name)
    small, large = (
        runtime.footprint(SIX_TENTHS_B, recipe, size) for size in (context, context + more)
    )
    assert small.total <= large.total
    assert runtime.decode_bytes(SIX_TENTHS_B, recipe, context) <= runtime.decode_bytes(
        SIX_TENTHS_B, recipe, context + more
    )


@given(st.integers(1, 40960))
def test_the_default_cache_costs_its_stated_bits_in_whole_blocks(context: int) -> None:
    recipe = runtime.recipe("int8_asym")
    tokens = sizes.cache_blocks(context) * sizes.BLOCK
    assert context + sizes.BLOCK <= tokens < context + 2 * sizes.BLOCK
    assert sizes.cache_bytes(SIX_TENTHS_B, "u8", context) == kv_cache_bytes(
        SIX_TENTHS_B, tokens, recipe.kv_bits
    )


def test_a_token_of_a_mixture_reads_the_active_experts_only() -> None:
    compression = runtime.recipe("int4_sym_g128").settings["compression"]
    assert sizes.totals(MIXTURE, compression).read < sizes.totals(MIXTURE, compression).stored / 8
    assert sizes.totals(HALF_B, compression).read == sizes.totals(HALF_B, compression).stored


# Peak resident bytes of the build, see docs/measurements/openvino.md.
@pytest.mark.parametrize(
    ("name", "peak"),
    [("bf16", 1.470e9), ("int4_sym_g128", 2.122e9), ("q4_0", 1.440e9), ("q8_0", 2.100e9)],
)
def test_the_memory_of_a_build_agrees_with_what_was_measured(name: str, peak: float) -> None:
    assert runtime.build_needs(SIX_TENTHS_B, runtime.recipe(name)).memory == pytest.approx(
        peak, rel=0.03
    )


def test_a_build_needs_disk_for_what_stands_in_between() -> None:
    recipe = runtime.recipe("int4_sym_g128")
    artifact = runtime.artifact_bytes(SIX_TENTHS_B, recipe)
    assert runtime.build_needs(SIX_TENTHS_B, recipe).disk == artifact
    assert runtime.build_needs(
        SIX_TENTHS_B, runtime.recipe("q4_0")
    ).disk == 3 * runtime.artifact_bytes(SIX_TENTHS_B, runtime.recipe("q4_0"))
    assert runtime.build_needs(
        MIXTURE, recipe
    ).disk == 2 * MIXTURE.parameters() + runtime.artifact_bytes(MIXTURE, recipe)


def test_the_commands_for_the_package_name_its_context_and_cache() -> None:
    text = runtime.how_to_run(runtime.recipe("int4_sym_g128", "f16"), {"context": 4096})
    assert 'KV_CACHE_PRECISION="f16"' in text and f"num_kv_blocks = {4096 // 32 + 1}" in text
