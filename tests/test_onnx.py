"""The ONNX Runtime adapter without its engine: recipes, sizes, what it cannot build, what it
takes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.predict.memory import kv_cache_bytes
from packager.recipe import split_id
from packager.runtime import Runtime
from packager.shape import Experts, Shape
from targets.onnxruntime import OnnxRuntime, data, providers, sizes
from targets.onnxruntime.quantization import Quantization, Settings, parse, sensitive_layers
from targets.onnxruntime.speed import speed
from tests.support.make_checkpoint import tiny_shape

RUNTIME = OnnxRuntime()
RECIPES = RUNTIME.recipes()
NAMES = [recipe.weights for recipe in RECIPES]
# Qwen2.5-0.5B and Qwen3-0.6B. Source: their config.json.
QWEN2_5_05B = Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151_936, True, True, False, 32_768)
QWEN3_06B = Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151_936, True, False, True, 40_960)
FOUR_BITS = Settings("cpu", "fp32", Quantization(4, 4, "rtn", 32, False, 4))


def settings(name: str) -> Settings:
    return data.settings_of(RUNTIME.recipe(name))


def test_the_adapter_follows_the_contract() -> None:
    assert isinstance(RUNTIME, Runtime)
    assert (RUNTIME.name, RUNTIME.prefix, RUNTIME.extra) == ("onnxruntime", "onnx", "onnx")


def test_a_recipe_for_another_provider_than_the_cpu_says_so_in_its_name() -> None:
    assert {recipe.provider for recipe in RECIPES} == {"cpu", "cuda", "dml", "webgpu"}
    for recipe in RECIPES:
        assert recipe.weights.startswith(("cuda_", "dml_", "webgpu_")) == (recipe.provider != "cpu")
        assert recipe.weights.startswith(f"{recipe.provider}_") or recipe.provider == "cpu"
        assert recipe.settings["provider"] == recipe.provider


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_found_by_the_name_in_its_id(name: str) -> None:
    recipe = RUNTIME.recipe(name)
    assert split_id(recipe.id) == ("onnx", name, None)
    assert RUNTIME.recipe(name, recipe.kv) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_the_way_through_a_manifest(name: str) -> None:
    assert parse(RUNTIME.recipe(name).settings, name).as_dict() == RUNTIME.recipe(name).settings


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(PackError, match="Did you mean 'int4_sym_b32'") as caught:
        RUNTIME.recipe("int4_sym_b33")
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_cache_has_the_precision_of_the_activations() -> None:
    assert {(recipe.provider == "cpu", recipe.kv, recipe.kv_bits) for recipe in RECIPES} == {
        (True, "f32", 32),
        (False, "f16", 16),
    }
    with pytest.raises(PackError, match="keeps the cache of 'int4_sym_b32' as f32, not as 'q8_0'"):
        RUNTIME.recipe("int4_sym_b32", "q8_0")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"provider": "tpu"}, "provider is 'tpu', not one of cpu, cuda, dml, webgpu"),
        ({"precision": None}, "precision is None, not one of fp32, fp16"),
        ({"bits": 4}, "'bits' is not a known setting"),
        (
            {"quantization": {**asdict(FOUR_BITS.quantization), "block": 48}},
            "block is 48, not one of 16, 32, 64, 128, 256",
        ),  # type: ignore[call-overload]
        (
            {"quantization": {**asdict(FOUR_BITS.quantization), "zero_points": 1}},
            "zero_points is 1, not one of False, True",
        ),  # type: ignore[call-overload]
        (
            {"quantization": {**asdict(FOUR_BITS.quantization), "sensitive_bits": 6}},
            "sensitive_bits is 6, not one of 8",
        ),  # type: ignore[call-overload]
        (
            {"quantization": {**asdict(FOUR_BITS.quantization), "method": "k_quant"}},
            "k_quant always keeps zero points",
        ),  # type: ignore[call-overload]
    ],
)
def test_a_wrong_setting_is_refused_with_the_place_and_the_key(
    change: dict[str, object], says: str
) -> None:
    with pytest.raises(PackError, match=says) as caught:
        parse({**FOUR_BITS.as_dict(), **change}, "recipes.toml: weights.x")
    assert caught.value.message.startswith("recipes.toml: weights.x: ")
    assert caught.value.exit_code == ExitCode.INPUT


# Sizes of model.onnx.data as onnxruntime-genai 0.18 wrote them from random weights of the true
# shape.
@pytest.mark.parametrize(
    ("shape", "name", "size"),
    [
        (QWEN2_5_05B, "int4_k_quant_b32", 325_118_720),
        (QWEN2_5_05B, "int4_sym_b32", 317_400_576),
        (QWEN2_5_05B, "int4_sym_b128", 271_091_712),
        (QWEN2_5_05B, "int8_sym_b32", 564_381_184),
        (QWEN2_5_05B, "int4_sym_b128_mixed", 371_501_056),
        (QWEN3_06B, "int4_k_quant_b32", 403_036_160),
        (QWEN3_06B, "int4_sym_b32", 393_723_904),
    ],
)
def test_the_weights_of_real_builds_are_as_large_as_the_arithmetic_says(
    shape: Shape, name: str, size: int
) -> None:
    assert sizes.weight_bytes(shape, settings(name)) == size


@given(st.integers(1, 200))
def test_the_ends_and_every_third_layer_between_keep_their_sensitive_matrices_in_more_bits(
    layers: int,
) -> None:
    raised = sensitive_layers(layers)
    how = Quantization(4, 4, "rtn", 128, False, 4, sensitive_bits=8)
    assert 0 in raised and raised <= set(range(layers))
    assert len(raised) <= layers / 4 + (layers * 3 / 4) / 3 + 3
    assert {how.bits_of(layers, layer, "down_proj") for layer in raised} == {8}
    assert {how.bits_of(layers, layer, "gate_proj") for layer in range(layers)} == {4}
    assert how.bits_of(layers, None, "") == 4


def test_of_24_layers_half_are_raised() -> None:
    assert sorted(sensitive_layers(24)) == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]


def test_blocks_of_128_are_forecast_faster_where_that_was_measured() -> None:
    def rates(name: str, isa: str) -> tuple[float, float]:
        forecast = speed(QWEN3_06B, RUNTIME.recipe(name), isa)
        return forecast.bandwidth, forecast.compute

    for isa in ("x86_64", "x86_64 avx2", "aarch64 dotprod"):
        short = rates("int4_sym_b32", isa)
        for name in ("int4_sym_b128", "int4_sym_b128_mixed"):
            longer = rates(name, isa)
            if isa.startswith("x86_64"):
                assert longer[0] > short[0] and longer[1] > short[1]
            else:
                assert longer == short


def test_what_was_not_asked_for_is_not_in_a_recipes_settings() -> None:
    """A manifest of before the setting existed describes the same recipe."""
    assert "sensitive_bits" not in settings("int4_sym_b32").as_dict()["quantization"]
    written = settings("int4_sym_b128_mixed").as_dict()
    assert written["quantization"]["sensitive_bits"] == 8
    assert parse(written, "manifest") == settings("int4_sym_b128_mixed")


@given(
    rows=st.integers(1, 300),
    blocks=st.integers(1, 40),
    block=st.sampled_from((16, 32, 64, 128, 256)),
    bits=st.sampled_from((4, 8)),
)
def test_whole_blocks_take_their_bits_and_one_scale_each(
    rows: int, blocks: int, block: int, bits: int
) -> None:
    quantization = Quantization(bits, bits, "rtn", block, False, 4)
    weights = rows * blocks * block
    assert (
        quantization.matrix_bytes(rows, blocks * block, bits, 4)
        == weights * bits // 8 + rows * blocks * 4
    )


@given(rows=st.integers(1, 300), columns=st.integers(1, 5000), block=st.sampled_from((32, 128)))
def test_a_row_is_padded_to_whole_blocks_and_zero_points_to_whole_bytes(
    rows: int, columns: int, block: int
) -> None:
    bare = Quantization(4, 4, "rtn", block, False, 4)
    full = replace(bare, zero_points=True)
    count = rows * bare.blocks(columns)
    assert 0 <= bare.blocks(columns) * block - columns < block
    assert (
        full.matrix_bytes(rows, columns, 4, 4) - bare.matrix_bytes(rows, columns, 4, 4)
        == (count + 1) // 2
    )


def test_an_untied_embedding_is_stored_beside_the_output_matrix() -> None:
    tied, untied = tiny_shape(tied=True), tiny_shape(tied=False)
    four_bits = 1024 * 64 // 2 + 1024 * 2 * 4
    for name, size in (
        ("int8_sym_b32", 1024 * 64 * 4),
        ("cuda_fp16", 1024 * 64 * 2),
        ("int4_sym_b32", four_bits),
        ("int4_asym_b32", four_bits + 1024),
    ):
        assert (
            sizes.weight_bytes(untied, settings(name)) - sizes.weight_bytes(tied, settings(name))
            == size
        )


def test_a_token_reads_all_matrices_and_the_cache_but_neither_embedding_nor_rotary_tables() -> None:
    recipe = RUNTIME.recipe("int4_sym_b32")
    untied = tiny_shape(tied=False)
    beside = sizes.embedding_bytes(untied, FOUR_BITS) + sizes.rotary_bytes(untied, FOUR_BITS)
    assert sizes.weights_read(untied, FOUR_BITS) == sizes.weight_bytes(untied, FOUR_BITS) - beside
    assert RUNTIME.decode_bytes(untied, recipe, 100) == sizes.weights_read(
        untied, FOUR_BITS
    ) + kv_cache_bytes(untied, 100, 32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [QWEN2_5_05B, QWEN3_06B], ids=lambda shape: shape.model_type)
def test_the_dense_generations_are_built_in_every_recipe(shape: Shape, name: str) -> None:
    recipe = RUNTIME.recipe(name)
    assert RUNTIME.obstacle(shape, recipe) is None
    needs = RUNTIME.build_needs(shape, recipe)
    # The builder reads the checkpoint whole, and holds it in 32 bits at least once.
    assert needs.memory > 4 * shape.parameters()
    assert (
        needs.disk
        > RUNTIME.artifact_bytes(shape, recipe)
        > sizes.weight_bytes(shape, data.settings_of(recipe))
    )


@pytest.mark.parametrize(
    ("model_type", "says"),
    [
        ("qwen2_moe", "does not know Qwen2-MoE"),
        ("qwen3_moe", "does not know Qwen3-MoE"),
        ("qwen3_next", "does not know Qwen3-Next"),
        ("qwen3_vl", "this one is 'qwen3_vl'"),
    ],
)
def test_what_the_model_builder_does_not_know_is_an_obstacle_in_one_sentence(
    model_type: str, says: str
) -> None:
    obstacle = RUNTIME.obstacle(replace(QWEN3_06B, model_type=model_type), RECIPES[0])
    assert obstacle is not None and says in obstacle and obstacle.endswith(".")


def test_experts_are_an_obstacle_whatever_the_model_type_says() -> None:
    assert RUNTIME.obstacle(replace(QWEN3_06B, experts=Experts(8, 2, 256)), RECIPES[0]) is not None


def test_heads_that_the_engine_does_not_turn_are_an_obstacle() -> None:
    for width in (16, 48, 64, 128):
        assert RUNTIME.obstacle(replace(QWEN2_5_05B, head_dim=width), RECIPES[0]) is None
    obstacle = RUNTIME.obstacle(replace(QWEN2_5_05B, head_dim=8), RECIPES[0])
    assert obstacle is not None and "a multiple of 16; these have 8." in obstacle


def test_an_odd_number_of_blocks_is_an_obstacle_where_zero_points_are_packed_in_pairs() -> None:
    odd = replace(QWEN2_5_05B, intermediate=32 * 101)
    assert RUNTIME.obstacle(odd, RUNTIME.recipe("int4_sym_b32")) is None
    obstacle = RUNTIME.obstacle(odd, RUNTIME.recipe("int4_asym_b32"))
    assert (
        obstacle == "Rows of 3232 weights make 101 blocks of 32: zero points are packed in pairs."
    )


@pytest.mark.parametrize("name", ["int4_asym_b32", "cuda_int4_asym_b32"])
def test_a_longer_context_takes_the_bytes_of_its_cache_at_least(name: str) -> None:
    recipe = RUNTIME.recipe(name)
    short, long = (RUNTIME.footprint(QWEN3_06B, recipe, context) for context in (512, 4096))
    assert long.kv_cache - short.kv_cache == kv_cache_bytes(QWEN3_06B, 4096 - 512, recipe.kv_bits)
    # A prompt is worked on in pieces of 512 tokens, so nothing else grows with it.
    assert replace(long, kv_cache=0) == replace(short, kv_cache=0)
    assert long.weights >= sizes.weight_bytes(QWEN3_06B, data.settings_of(recipe))


# Peak resident bytes with a full context, docs/measurements/onnxruntime.md.
@pytest.mark.parametrize(
    ("shape", "name", "context", "peak"),
    [
        (QWEN2_5_05B, "int4_asym_b32", 512, 709e6),
        (QWEN2_5_05B, "int4_asym_b32", 4096, 779e6),
        (QWEN2_5_05B, "int8_sym_b32", 512, 1035e6),
        (QWEN2_5_05B, "fp32", 512, 3130e6),
        (QWEN3_06B, "int4_asym_b32", 512, 910e6),
        (QWEN3_06B, "int4_asym_b32", 4096, 1737e6),
        (QWEN3_06B, "int4_sym_b32", 2048, 1261e6),
    ],
)
def test_the_footprint_lies_at_most_a_tenth_above_what_was_measured_and_not_below(
    shape: Shape, name: str, context: int, peak: float
) -> None:
    assert peak <= RUNTIME.footprint(shape, RUNTIME.recipe(name), context).peak <= 1.1 * peak


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_the_readme_names_the_context_and_the_distribution_of_the_provider(recipe: object) -> None:
    text = RUNTIME.how_to_run(recipe, {"context": 1234})  # type: ignore[arg-type]
    wanted = {"cuda": "onnxruntime-genai-cuda", "dml": "onnxruntime-genai-directml"}.get(
        recipe.provider, "onnxruntime-genai"
    )  # type: ignore[attr-defined]
    assert f"`pip install {wanted}`" in text
    assert "max_length=1234" in text


class NoGpu:
    """An engine that has no provider but the CPU."""

    @staticmethod
    def is_cuda_available() -> bool:
        return False


@pytest.mark.parametrize(
    ("provider", "word"),
    [
        ("cuda", "CUDA"),
        ("dml", "DirectML"),
        ("webgpu", "WebGPU"),
        ("NvTensorRtRtx", "nvtensorrtrtx"),
    ],
)
def test_a_provider_that_is_not_here_is_refused_with_the_line_that_helps(
    provider: str, word: str
) -> None:
    config = {"model": {"decoder": {"session_options": {"provider_options": [{provider: {}}]}}}}
    with pytest.raises(
        PackError, match=f"made for {word}, which ONNX Runtime does not have on this machine"
    ) as caught:
        providers.require(providers.of(config), NoGpu)
    assert caught.value.exit_code == ExitCode.USAGE and caught.value.hint


def test_a_package_for_the_cpu_asks_for_no_provider() -> None:
    assert (
        providers.of({"model": {"decoder": {"session_options": {"provider_options": []}}}}) == "cpu"
    )
    providers.require("cpu", NoGpu)


def test_a_distribution_for_another_processor_stands_for_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = OnnxRuntime().distributions
    for name in ("onnxruntime_gpu", "onnxruntime_genai_cuda"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    special = OnnxRuntime().distributions
    assert special[:2] == ("onnxruntime-genai-cuda", "onnxruntime-gpu")
    assert special[2:] == plain[2:]
    if plain[1] == "onnxruntime":
        assert plain[0] == "onnxruntime-genai"
