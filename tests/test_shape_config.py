"""config.json and Shape: the way there, the way back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.catalog import find
from packager.errors import ExitCode, PackError
from packager.shape import Shape
from tests.support.shapes import MIXTURE, QWEN2, QWEN3, QWEN3_NEXT, shapes


@given(shapes())
def test_a_config_that_was_written_reads_back_as_the_same_shape(shape: Shape) -> None:
    text = json.dumps(shape.to_config())
    assert Shape.from_config(json.loads(text), "config.json") == shape


def test_a_written_config_carries_what_both_generations_of_transformers_look_for() -> None:
    config = replace(QWEN3, vocab=151_936).to_config()
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1e6
    assert (config["architectures"], config["torch_dtype"]) == (["Qwen3ForCausalLM"], "bfloat16")
    assert (config["bos_token_id"], config["eos_token_id"]) == (151_643, 151_645)
    assert (config["use_sliding_window"], config["sliding_window"]) == (False, None)


def test_token_ids_that_the_vocabulary_does_not_hold_are_left_out() -> None:
    assert "eos_token_id" not in QWEN3.to_config()


def test_every_genuine_config_is_the_shape_that_the_catalogue_lists(shared: Path) -> None:
    files = sorted((shared / "qwen" / "configs").glob("*.config.json"))
    assert len(files) > 20
    for file in files:
        shape = Shape.from_config(json.loads(file.read_text()), str(file))
        assert shape == find(file.name.removesuffix(".config.json")).shape, file.name


def test_a_genuine_first_generation_config_stores_twice_the_width(shared: Path) -> None:
    file = shared / "qwen" / "qwen1" / "config.Qwen-VL-Chat-Int4.json"
    config = json.loads(file.read_text())
    assert Shape.from_config(config, str(file)).intermediate * 2 == config["intermediate_size"]


def config_of(shape: Shape, **changes: Any) -> dict[str, Any]:
    """The config of a shape with some keys changed; `...` removes one."""
    config = {**shape.to_config(), **changes}
    return {key: value for key, value in config.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": ...}, "my.json: model_type None is not a known Qwen type"),
        ({"model_type": "llama"}, "my.json: model_type 'llama' is not a known Qwen type"),
        ({"model_type": ["qwen3"]}, r"my.json: model_type \['qwen3'\] is not a known Qwen type"),
        ({"hidden_size": ...}, "my.json: hidden_size is missing"),
        ({"vocab_size": None}, "my.json: vocab_size is missing"),
        ({"num_hidden_layers": 0}, "my.json: num_hidden_layers is 0, not a positive whole number"),
        ({"num_hidden_layers": -3}, "my.json: num_hidden_layers is -3"),
        (
            {"num_hidden_layers": 28.0},
            "my.json: num_hidden_layers is 28.0, not a positive whole number",
        ),
        ({"num_hidden_layers": True}, "my.json: num_hidden_layers is True"),
        ({"hidden_size": 10**30}, "my.json: hidden_size is 1000000000000000000000000000000"),
        (
            {"num_key_value_heads": 3},
            "my.json: num_key_value_heads is 3, which does not divide num_attention_heads = 4",
        ),
        ({"attention_bias": True}, "my.json: attention_bias is true"),
        (
            {"tie_word_embeddings": "yes"},
            "my.json: tie_word_embeddings is 'yes', neither true nor false",
        ),
        (
            {"rope_theta": "much", "rope_parameters": ...},
            "my.json: rope_theta is 'much', not a positive number",
        ),
        (
            {"rope_theta": ..., "rope_parameters": {"rope_theta": -1}},
            "my.json: rope_parameters.rope_theta is -1",
        ),
        ({"rope_theta": ..., "rope_parameters": 5}, "my.json: rope_parameters is 5, not a table"),
        ({"rms_norm_eps": float("nan")}, "my.json: rms_norm_eps is nan"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_file_and_key_named(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PackError, match=complaint) as caught:
        Shape.from_config(config_of(QWEN3, **changes), "my.json")
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"mlp_only_layers": [0]},
            "mlp_only_layers or decoder_sparse_step leaves some layers dense",
        ),
        (
            {"decoder_sparse_step": 2},
            "mlp_only_layers or decoder_sparse_step leaves some layers dense",
        ),
        ({"num_experts": ...}, "num_experts is missing"),
        ({"shared_expert_intermediate_size": ...}, "shared_expert_intermediate_size is missing"),
        (
            {"layer_types": ["full_attention"] + 3 * ["linear_attention"]},
            "layer_types is not 4 layers with full attention at every 1th",
        ),
        ({"layer_types": "all"}, "layer_types is 'all', not a list"),
    ],
)
def test_a_mixture_or_hybrid_that_no_qwen_has_is_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PackError, match=complaint):
        Shape.from_config(config_of(QWEN3_NEXT, **changes), "my.json")


def test_a_complaint_about_a_nested_key_gives_its_whole_path() -> None:
    config = replace(
        QWEN3, model_type="qwen3_omni_moe", experts=replace(MIXTURE, shared_intermediate=None)
    ).to_config()
    del config["thinker_config"]["text_config"]["vocab_size"]
    with pytest.raises(
        PackError, match=r"my\.json: thinker_config\.text_config.vocab_size is missing"
    ):
        Shape.from_config(config, "my.json")
    with pytest.raises(PackError, match=r"my\.json: text_config is missing"):
        Shape.from_config({"model_type": "qwen3_vl"}, "my.json")


def test_an_odd_width_of_the_first_generation_is_refused() -> None:
    shape = replace(QWEN2, model_type="qwen", kv_heads=4)
    with pytest.raises(PackError, match="intermediate_size is 7"):
        Shape.from_config(config_of(shape, intermediate_size=7), "my.json")


def test_a_config_that_is_no_object_is_refused() -> None:
    with pytest.raises(PackError, match=r"my\.json holds no JSON object"):
        Shape.from_config([], "my.json")  # type: ignore[arg-type]


def test_qwen2_divides_for_its_head_width_and_qwen3_defaults_to_128() -> None:
    assert Shape.from_config(config_of(QWEN2, head_dim=...), "c").head_dim == 16
    assert Shape.from_config(config_of(QWEN3, head_dim=...), "c").head_dim == 128


def test_key_value_heads_that_are_null_are_as_many_as_the_heads() -> None:
    assert (
        Shape.from_config(config_of(QWEN2, num_key_value_heads=None), "c").kv_heads == QWEN2.heads
    )


def test_both_forms_of_a_vision_config_describe_the_same_decoder() -> None:
    shape = replace(QWEN2, model_type="qwen2_5_vl")
    flat = shape.to_config()
    nested = {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": True,
        "text_config": {**flat, "tie_word_embeddings": False},
    }
    assert Shape.from_config(nested, "c") == Shape.from_config(flat, "c") == shape


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    shapes(),
    st.dictionaries(
        st.sampled_from(sorted({*QWEN3_NEXT.to_config(), "text_config"})), json_values, max_size=3
    ),
)
def test_no_config_however_wrong_ends_in_anything_but_a_sentence(
    shape: Shape, changes: dict[str, Any]
) -> None:
    try:
        Shape.from_config({**shape.to_config(), **changes}, "my.json")
    except PackError as error:
        assert "my.json" in error.message
