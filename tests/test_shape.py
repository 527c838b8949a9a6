"""Shapes: the tensors of every generation, and what is counted from them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given

from packager.catalog import find
from packager.errors import ExitCode, PackError
from packager.shape import KNOWN_TYPES, Hybrid, Shape, TensorSpec, tensors
from tests.support.shapes import HYBRID, QWEN2, QWEN3, QWEN3_NEXT, shapes


def names(shape: Shape) -> list[str]:
    return [spec.name for spec in tensors(shape)]


def test_a_qwen2_checkpoint_has_biases_on_q_k_v_and_no_output_matrix_when_tied() -> None:
    assert [(spec.name, spec.shape) for spec in tensors(replace(QWEN2, layers=1))] == [
        ("model.embed_tokens.weight", (512, 64)),
        ("model.layers.0.input_layernorm.weight", (64,)),
        ("model.layers.0.self_attn.q_proj.weight", (64, 64)),
        ("model.layers.0.self_attn.q_proj.bias", (64,)),
        ("model.layers.0.self_attn.k_proj.weight", (32, 64)),
        ("model.layers.0.self_attn.k_proj.bias", (32,)),
        ("model.layers.0.self_attn.v_proj.weight", (32, 64)),
        ("model.layers.0.self_attn.v_proj.bias", (32,)),
        ("model.layers.0.self_attn.o_proj.weight", (64, 64)),
        ("model.layers.0.post_attention_layernorm.weight", (64,)),
        ("model.layers.0.mlp.gate_proj.weight", (128, 64)),
        ("model.layers.0.mlp.up_proj.weight", (128, 64)),
        ("model.layers.0.mlp.down_proj.weight", (64, 128)),
        ("model.norm.weight", (64,)),
    ]


def test_a_qwen3_checkpoint_has_norms_of_queries_and_keys_instead_of_biases() -> None:
    assert [(spec.name, spec.shape) for spec in tensors(replace(QWEN3, layers=1))] == [
        ("model.embed_tokens.weight", (512, 64)),
        ("model.layers.0.input_layernorm.weight", (64,)),
        ("model.layers.0.self_attn.q_proj.weight", (128, 64)),
        ("model.layers.0.self_attn.k_proj.weight", (64, 64)),
        ("model.layers.0.self_attn.v_proj.weight", (64, 64)),
        ("model.layers.0.self_attn.q_norm.weight", (32,)),
        ("model.layers.0.self_attn.k_norm.weight", (32,)),
        ("model.layers.0.self_attn.o_proj.weight", (64, 128)),
        ("model.layers.0.post_attention_layernorm.weight", (64,)),
        ("model.layers.0.mlp.gate_proj.weight", (128, 64)),
        ("model.layers.0.mlp.up_proj.weight", (128, 64)),
        ("model.layers.0.mlp.down_proj.weight", (64, 128)),
        ("model.norm.weight", (64,)),
        ("lm_head.weight", (512, 64)),
    ]


def test_the_first_generation_fuses_its_attention_input_and_names_its_layers_otherwise() -> None:
    shape = replace(QWEN2, model_type="qwen", layers=1, kv_heads=4, tied=False)
    assert [(spec.name, spec.shape) for spec in tensors(shape)] == [
        ("transformer.wte.weight", (512, 64)),
        ("transformer.h.0.ln_1.weight", (64,)),
        ("transformer.h.0.attn.c_attn.weight", (192, 64)),
        ("transformer.h.0.attn.c_attn.bias", (192,)),
        ("transformer.h.0.attn.c_proj.weight", (64, 64)),
        ("transformer.h.0.ln_2.weight", (64,)),
        ("transformer.h.0.mlp.w1.weight", (128, 64)),
        ("transformer.h.0.mlp.w2.weight", (128, 64)),
        ("transformer.h.0.mlp.c_proj.weight", (64, 128)),
        ("transformer.ln_f.weight", (64,)),
        ("lm_head.weight", (512, 64)),
    ]


def test_three_of_four_layers_of_a_hybrid_are_delta_nets_and_the_fourth_gates_its_attention() -> (
    None
):
    by_name = {spec.name: spec.shape for spec in tensors(QWEN3_NEXT)}
    assert by_name["model.layers.2.linear_attn.in_proj_qkvz.weight"] == (2 * 32 + 2 * 32, 64)
    assert by_name["model.layers.2.linear_attn.in_proj_ba.weight"] == (8, 64)
    assert by_name["model.layers.2.linear_attn.conv1d.weight"] == (2 * 32 + 32, 1, 4)
    assert by_name["model.layers.2.linear_attn.out_proj.weight"] == (64, 32)
    assert by_name["model.layers.3.self_attn.q_proj.weight"] == (2 * 4 * 32, 64)
    assert by_name["model.layers.3.self_attn.o_proj.weight"] == (64, 4 * 32)
    assert (
        "model.layers.3.linear_attn.A_log" not in by_name
        and "model.layers.2.self_attn.q_proj.weight" not in by_name
    )
    assert by_name["model.layers.0.mlp.shared_expert_gate.weight"] == (1, 64)


def test_qwen3_5_keeps_the_four_input_projections_of_a_delta_net_apart() -> None:
    shape = replace(QWEN3_NEXT, model_type="qwen3_5", experts=None)
    found = {
        spec.name.rpartition("linear_attn.")[2]: spec.shape
        for spec in tensors(shape)
        if ".layers.0.linear_attn.in_proj" in spec.name
    }
    assert found == {
        "in_proj_qkv.weight": (96, 64),
        "in_proj_z.weight": (32, 64),
        "in_proj_b.weight": (4, 64),
        "in_proj_a.weight": (4, 64),
    }


@pytest.mark.parametrize(
    ("model_type", "name", "shape"),
    [
        ("qwen3_moe", "model.layers.0.mlp.experts.3.down_proj.weight", (64, 32)),
        ("qwen3_vl_moe", "model.language_model.layers.0.mlp.experts.gate_up_proj", (4, 64, 64)),
        ("qwen3_vl_moe", "model.language_model.layers.0.mlp.experts.down_proj", (4, 32, 64)),
        ("qwen3_5_moe", "model.language_model.layers.0.mlp.experts.down_proj", (4, 64, 32)),
        ("qwen3_omni_moe", "thinker.model.layers.0.mlp.experts.0.up_proj.weight", (32, 64)),
    ],
)
def test_each_family_stores_its_experts_in_its_own_way(
    model_type: str, name: str, shape: tuple[int, ...]
) -> None:
    hybrid = HYBRID if model_type == "qwen3_5_moe" else None
    mixture = replace(QWEN3_NEXT, model_type=model_type, hybrid=hybrid)
    assert {spec.name: spec.shape for spec in tensors(mixture)}[name] == shape


def test_the_prefix_of_every_name_is_that_of_the_model_type() -> None:
    heads = {name: names(replace(QWEN3, model_type=name, experts=None))[-1] for name in KNOWN_TYPES}
    assert heads["qwen2_audio"] == "language_model.lm_head.weight"
    assert heads["qwen2_5_omni"] == "thinker.lm_head.weight"
    assert heads["qwen3_vl"] == heads["qwen2_vl"] == "lm_head.weight"


def test_an_unknown_model_type_has_no_tensors() -> None:
    with pytest.raises(PackError, match="'llama' checkpoint are not known") as caught:
        list(tensors(replace(QWEN2, model_type="llama")))
    assert caught.value.exit_code == ExitCode.INPUT


def test_the_elements_of_a_tensor_are_the_product_of_its_sizes() -> None:
    assert TensorSpec("a", (3, 4, 5)).elements == 60


@given(shapes(small=True))
def test_parameters_are_the_sum_of_all_tensors_and_no_name_occurs_twice(shape: Shape) -> None:
    specs = list(tensors(shape))
    assert shape.parameters() == sum(spec.elements for spec in specs)
    assert len({spec.name for spec in specs}) == len(specs)


def test_active_parameters_leave_out_the_experts_that_the_router_does_not_choose() -> None:
    assert QWEN3.active_parameters() == QWEN3.parameters()
    assert QWEN3_NEXT.parameters() - QWEN3_NEXT.active_parameters() == 4 * 2 * 3 * 64 * 32


def test_only_full_attention_keeps_a_cache_and_the_other_layers_keep_a_state_of_fixed_size() -> (
    None
):
    assert (QWEN3.attention_layers, QWEN3.recurrent_layers, QWEN3.state_elements) == (2, 0, 0)
    assert (QWEN3_NEXT.attention_layers, QWEN3_NEXT.recurrent_layers) == (1, 3)
    # Per layer a matrix of 16 x 8 for each of 4 value heads, and 3 inputs of the 96 convolution
    # channels.
    assert QWEN3_NEXT.state_elements == 3 * (4 * 16 * 8 + 96 * 3)


def test_the_true_state_of_qwen3_next_is_that_of_llama_cpp() -> None:
    # llama.cpp: n_embd_s = ssm_d_state * ssm_d_inner; n_embd_r is all channels of the convolution,
    # for one token less than its width.
    d_state, d_inner, groups, d_conv = 128, 32 * 128, 16, 4
    expected = d_state * d_inner + (d_conv - 1) * (d_inner + 2 * groups * d_state)
    assert Hybrid(4, 16, 32, 128, 128, 4).state_elements == expected


@given(shapes())
def test_a_shape_survives_its_way_through_a_dictionary(shape: Shape) -> None:
    assert Shape.from_dict(json.loads(json.dumps(asdict(shape)))) == shape


def test_the_names_of_the_first_generation_are_those_of_a_genuine_index(shared: Path) -> None:
    index = json.loads(
        (shared / "qwen" / "qwen1" / "Qwen-VL-Chat-Int4.model.safetensors.index.json").read_text()
    )
    # The index is of a GPTQ checkpoint: every matrix of the layers lies there in four parts, with a
    # bias of zeros.
    parts = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight", ".bias")
    stored = {
        name.rpartition(".")[0]
        for name in index["weight_map"]
        if ".visual." not in name and name.endswith(parts)
    }
    shape = find("Qwen-VL-Chat").shape
    assert shape is not None
    assert stored == {spec.name.rpartition(".")[0] for spec in tensors(shape)}
