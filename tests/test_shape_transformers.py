"""Our tensors and defaults, held against the real transformers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from packager.shape import KNOWN_TYPES, Experts, Hybrid, Shape, tensors
from packager.shape.names import NAMINGS

# Looked for and not imported: each worker of a run collects every file.
WITNESS = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("torch") is None,
    reason="needs transformers and torch, which come with the openvino and onnx extras",
)
pytestmark = [pytest.mark.engine, WITNESS]

TEXT = [
    name
    for name in KNOWN_TYPES
    if name.endswith(("_text", "_moe", "_next", "qwen2", "qwen3")) and not NAMINGS[name].config
]
# Loaded under other names than those of the hub's files; Qwen3-Omni's talker cannot be made without
# a config of its own.
COMPOSITE = ["qwen2_audio", "qwen2_5_omni", "qwen3_vl", "qwen3_5", "qwen3_5_moe"]


def tiny(model_type: str) -> Shape:
    """Four layers of the true architecture."""
    decoder = NAMINGS[model_type].decoder
    third = decoder.startswith("qwen3")
    shared = None if decoder == "qwen3_moe" else 48
    return Shape(
        model_type=model_type,
        hidden=64,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32 if third else 16,
        intermediate=0 if decoder == "qwen3_5_moe" else 128,
        vocab=512,
        tied=False,
        qkv_bias=not third,
        qk_norm=third,
        context=1024,
        rope_theta=5e5,
        rms_eps=1e-5,
        experts=Experts(4, 2, 32, shared, True) if decoder.endswith(("_moe", "_next")) else None,
        hybrid=Hybrid(4, 2, 4, 16, 16, 4)
        if decoder in ("qwen3_next", "qwen3_5", "qwen3_5_moe")
        else None,
    )


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file."""
    raw = file.read_bytes()
    table = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: tuple(entry["shape"]) for name, entry in table.items() if name != "__metadata__"}


def model(shape: Shape, device: str) -> Any:
    """The model that transformers makes of our config.json."""
    import torch
    import transformers

    config = shape.to_config()
    loaded = transformers.CONFIG_MAPPING[shape.model_type].from_dict(config)
    with torch.device(device):
        return getattr(transformers, config["architectures"][0])(loaded)


@pytest.mark.parametrize("model_type", TEXT)
def test_a_checkpoint_that_transformers_saves_holds_exactly_our_tensors_and_our_shape(
    model_type: str, tmp_path: Path
) -> None:
    shape = tiny(model_type)
    model(shape, "cpu").save_pretrained(tmp_path)
    assert header(tmp_path / "model.safetensors") == {
        spec.name: spec.shape for spec in tensors(shape)
    }
    assert (
        Shape.from_config(json.loads((tmp_path / "config.json").read_text()), "config.json")
        == shape
    )


@pytest.mark.parametrize("model_type", COMPOSITE)
def test_the_text_decoder_within_a_vision_audio_or_omni_model_has_our_tensors(
    model_type: str,
) -> None:
    shape = tiny(model_type)
    known = {name: tuple(value.shape) for name, value in model(shape, "meta").state_dict().items()}
    ours = {spec.name: spec.shape for spec in tensors(shape)}
    assert {name: known.get(name) for name in ours} == ours


def test_the_mixture_of_qwen3_vl_is_stored_transposed_and_turned_when_it_is_loaded() -> None:
    shape = tiny("qwen3_vl_moe")
    known = {name: tuple(value.shape) for name, value in model(shape, "meta").state_dict().items()}
    for spec in tensors(shape):
        stored = (
            spec.shape
            if ".experts." not in spec.name
            else (spec.shape[0], spec.shape[2], spec.shape[1])
        )
        assert known[spec.name] == stored


@pytest.mark.parametrize(
    "model_type",
    [*TEXT, "qwen3_vl", "qwen3_vl_moe", "qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"],
)
def test_where_a_config_is_silent_we_take_what_transformers_takes(model_type: str) -> None:
    import transformers

    needed = {
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 64,
        "vocab_size": 1000,
    }
    wide = {
        "intermediate_size": 96,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
    text = {**needed, **wide, "shared_expert_intermediate_size": 32}
    nested = bool(NAMINGS[model_type].config)
    config = {"model_type": model_type, **({"text_config": text} if nested else text)}
    ours = Shape.from_config(config, "config.json")
    loaded = transformers.CONFIG_MAPPING[model_type].from_dict(json.loads(json.dumps(config)))
    theirs = loaded.get_text_config()
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (ours.kv_heads, ours.head_dim, ours.context) == (
        theirs.num_key_value_heads,
        head_dim,
        theirs.max_position_embeddings,
    )
    assert (ours.rms_eps, ours.rope_theta) == (
        theirs.rms_norm_eps,
        theirs.rope_parameters["rope_theta"],
    )
    assert ours.tied == loaded.tie_word_embeddings
    if ours.experts is not None and hasattr(theirs, "norm_topk_prob"):
        assert ours.experts.norm_topk == theirs.norm_topk_prob
    if ours.hybrid is not None:
        assert [ours.full_attention(layer) for layer in range(8)] == [
            kind == "full_attention" for kind in theirs.layer_types
        ]
        assert (ours.hybrid.key_heads, ours.hybrid.value_heads) == (
            theirs.linear_num_key_heads,
            theirs.linear_num_value_heads,
        )
