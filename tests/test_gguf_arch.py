"""Which tensor of a checkpoint becomes which of the GGUF, and what is refused."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager import catalog
from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.shape import Shape, tensors
from targets.gguf.arch import MODEL_TYPES, architecture
from targets.gguf.arch.base import Architecture
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint, keys, values

pytestmark = pytest.mark.engine


def plan(shape: Shape, **config: Any) -> tuple[Architecture, dict[str, tuple[int, ...]]]:
    """The converter of a shape, and the checkpoint's tensors."""
    return architecture({**shape.to_config(), **config}), {
        spec.name: spec.shape for spec in tensors(shape)
    }


def test_every_shape_of_the_catalogue_that_is_a_text_model_is_mapped_without_loss() -> None:
    shapes = {
        variant.shape
        for variant in catalog.load()
        if variant.shape and variant.shape.model_type in MODEL_TYPES
    }
    assert len(shapes) > 50
    for shape in shapes:
        converter, stored = plan(shape)
        out = converter.tensors(stored)
        assert sum(tensor.elements for tensor in out) == shape.parameters()
        assert all(sum(part.rows for part in tensor.parts) == tensor.rows for tensor in out)


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(PackError, match=r"model_type 'qwen4'.*Did you mean") as caught:
        architecture({"model_type": "qwen4"})
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("value", [None, "24", 0, -1, True, 2.5])
def test_a_configuration_without_a_number_of_layers_is_refused_with_the_key(value: object) -> None:
    config = {**asdict(SHAPES["qwen2"]), **SHAPES["qwen2"].to_config(), "num_hidden_layers": value}
    with pytest.raises(PackError, match="num_hidden_layers"):
        architecture(config)


def test_a_missing_tensor_is_named() -> None:
    converter, stored = plan(SHAPES["qwen3"])
    del stored["model.layers.1.self_attn.q_norm.weight"]
    with pytest.raises(
        PackError, match=r"lacks what becomes 'blk\.1\.attn_q_norm\.weight'"
    ) as caught:
        converter.tensors(stored)
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_tensor_without_a_place_is_named() -> None:
    converter, stored = plan(SHAPES["qwen3"])
    with pytest.raises(PackError, match=r"'model\.layers\.0\.lora_A'"):
        converter.tensors({**stored, "model.layers.0.lora_A": (8, 256)})


def test_a_tied_output_matrix_that_is_stored_again_is_dropped() -> None:
    converter, stored = plan(SHAPES["qwen2-tied"])
    names = {
        tensor.name
        for tensor in converter.tensors(
            {**stored, "lm_head.weight": stored["model.embed_tokens.weight"]}
        )
    }
    assert "output.weight" not in names


def test_a_missing_expert_is_named_by_its_number() -> None:
    converter, stored = plan(SHAPES["qwen3_moe"])
    del stored["model.layers.1.mlp.experts.2.up_proj.weight"]
    with pytest.raises(
        PackError,
        match=r"'model\.layers\.1\.mlp\.experts\.up_proj\.weight' needs 4 experts, but expert 2 is missing",
    ):
        converter.tensors(stored)


@pytest.mark.parametrize(("name", "value"), [("qwen2_moe", True), ("qwen3_moe", False)])
def test_experts_weighed_otherwise_than_llama_cpp_weighs_them_are_refused(
    name: str, value: bool
) -> None:
    converter, _ = plan(SHAPES[name], norm_topk_prob=value)
    with pytest.raises(PackError, match="norm_topk_prob"):
        converter.check()


def test_experts_stored_singly_are_stacked_in_their_order(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_moe"])
    stored = Checkpoint.open(source)
    stack = values(build(source, tmp_path / "m.gguf", "BF16"))["blk.1.ffn_down_exps.weight"]
    each = [
        stored.array(f"model.layers.1.mlp.experts.{number}.down_proj.weight").astype(np.float32)
        for number in range(4)
    ]
    assert np.array_equal(stack, np.stack(each))


def test_the_fused_projection_of_a_delta_net_is_split_by_kind(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_next"])
    fused = (
        Checkpoint.open(source)
        .array("model.layers.0.linear_attn.in_proj_qkvz.weight")
        .astype(np.float32)
    )
    heads = fused.reshape(2, 64 + 64 + 128 + 128, 256)
    query, key, value, gate = np.split(heads, [64, 128, 256], axis=1)
    found = values(build(source, tmp_path / "m.gguf", "BF16"))
    assert np.array_equal(
        found["blk.0.attn_qkv.weight"],
        np.concatenate([part.reshape(-1, 256) for part in (query, key, value)]),
    )
    assert np.array_equal(found["blk.0.attn_gate.weight"], gate.reshape(-1, 256))


def test_value_heads_of_a_delta_net_change_from_grouped_to_tiled(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_5_text"])
    stored = Checkpoint.open(source)
    layer = next(
        name for name in stored.tensors if name.endswith("layers.0.linear_attn.A_log")
    ).removesuffix("A_log")
    found = values(build(source, tmp_path / "m.gguf", "BF16"))
    order = [0, 2, 1, 3]  # two value heads for each of two key heads
    rows = stored.array(f"{layer}in_proj_z.weight").astype(np.float32).reshape(4, 64, 256)
    assert np.array_equal(found["blk.0.attn_gate.weight"], rows[order].reshape(256, 256))
    columns = stored.array(f"{layer}out_proj.weight").astype(np.float32).reshape(256, 4, 64)
    assert np.array_equal(found["blk.0.ssm_out.weight"], columns[:, order].reshape(256, 256))
    decay = stored.array(f"{layer}A_log").astype(np.float32)
    assert np.allclose(found["blk.0.ssm_a"], -np.exp(decay[order]), rtol=1e-6)


def test_yarn_scaling_is_written_in_full(tmp_path: Path) -> None:
    config = {
        "rope_parameters": None,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
            "attention_factor": 1.0,
        },
    }
    converter, _ = plan(SHAPES["qwen3"], **config)
    import gguf

    writer = gguf.GGUFWriter(None, converter.gguf_name)
    converter.describe(writer)
    found = {name: value.value for name, value in writer.kv_data[0].items()}
    assert found["qwen3.rope.scaling.type"] == "yarn"
    assert found["qwen3.rope.scaling.factor"] == 4.0
    assert found["qwen3.rope.scaling.original_context_length"] == 32768
    # llama.cpp multiplies by 1 + 0.1 ln 4 itself.
    assert found["qwen3.rope.scaling.attn_factor"] == pytest.approx(1 / (1 + 0.1 * np.log(4)))


def test_yarn_without_the_trained_context_was_trained_for_all_of_it_as_in_transformers() -> None:
    import gguf

    converter, _ = plan(
        SHAPES["qwen3"],
        rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4},
        rope_scaling=None,
    )
    writer = gguf.GGUFWriter(None, "qwen3")
    converter.describe(writer)
    assert (
        writer.kv_data[0]["qwen3.rope.scaling.original_context_length"].value
        == SHAPES["qwen3"].context
    )


def test_a_mixture_says_how_many_experts_there_are_and_how_wide(tmp_path: Path) -> None:
    shape = replace(SHAPES["qwen2_moe"], layers=2)
    found = keys(build(checkpoint(tmp_path / "ck", shape), tmp_path / "m.gguf", "Q8_0"))
    assert found["qwen2moe.expert_count"] == 4
    assert found["qwen2moe.expert_used_count"] == 2
    assert found["qwen2moe.expert_feed_forward_length"] == 256
    assert found["qwen2moe.expert_shared_feed_forward_length"] == 256
