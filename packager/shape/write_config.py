"""A config.json from a Shape: what transformers 5.5 reads as the same decoder."""

from __future__ import annotations

from packager.json_values import JsonDict, JsonObject
from packager.shape.audio import audio_config
from packager.shape.from_config import layer_types
from packager.shape.model import Widths
from packager.shape.names import FIRST_GENERATION
from packager.shape.tensors import naming_of
from packager.shape.tower import vision_config

# <|endoftext|> and <|im_end|>: the vocabularies of 151,643 and of 248,044 ordinary tokens have them
# at these ids.
_END_OF_TEXT = {False: 151_643, True: 248_044}
_END_OF_TURN = {False: 151_645, True: 248_046}


_NESTED = ("thinker_config", "text_config")
"""The way to the decoder's table in a model that also speaks."""

_MROPE: dict[str, JsonObject] = {
    "qwen2_vl": {},
    "qwen2_5_vl": {},
    "qwen2_5_omni": {},
    "qwen3_vl": {"mrope_interleaved": True},
    "qwen3_vl_moe": {"mrope_interleaved": True},
    "qwen3_asr": {"mrope_interleaved": True, "interleaved": True},
}
"""Model types whose config.json shares out the pairs of a head among time, height and width, and
what else stands beside that. Qwen3.5's reader knows them by itself."""


def mrope_section(shape: Widths) -> list[int]:
    """Pairs of a head for time, height and width, in the proportions of the official checkpoints:
    16, 24, 24 of 64 in the second generation, 24, 20, 20 in the third."""
    pairs = shape.head_dim // 2
    side = pairs * (24 if shape.model_type.startswith("qwen2") else 20) // 64
    return [pairs - 2 * side, side, side]


def to_config(shape: Widths) -> JsonObject:
    """The config.json of this shape; `from_config` turns it back into the same shape.

    The token ids are Qwen's own, and are left out where the vocabulary is too small to hold them.
    Of vision, audio and omni models the text decoder is described, and the vision tower or the
    audio encoder where the shape has one. Raises PackError (exit code 6) for an unknown model type.
    """
    naming = naming_of(shape)
    decoder = (
        _first_generation(shape)
        if naming.decoder == FIRST_GENERATION
        else _decoder(shape, naming.decoder)
    )
    top: JsonDict = {
        "architectures": [naming.architecture],
        "model_type": shape.model_type,
        "tie_word_embeddings": shape.tied,
    }
    tower: JsonDict = {}
    if shape.vision is not None:
        kind = shape.model_type
        # The one that also speaks has a configuration class for each of its parts.
        kind += "_vision_encoder" if kind == "qwen2_5_omni" else ""
        tower = {"vision_config": {**vision_config(shape.vision), "model_type": kind}}
    if len(naming.config) < len(_NESTED):
        top |= tower
    if not naming.config:
        return {**decoder, **top}
    inner = "qwen2" if shape.model_type == "qwen2_audio" else f"{shape.model_type}_text"
    decoder = {**decoder, "model_type": inner}
    # The tables of the encoders stand beside the decoder's.
    beside: JsonDict = {"audio_config": audio_config(shape.audio)} if shape.audio else {}
    if len(naming.config) == len(_NESTED):
        beside |= tower
    for key in reversed(naming.config):
        decoder = {key: decoder, **beside}
        beside = {}
    return {**top, "torch_dtype": "bfloat16", **decoder}


def _decoder(shape: Widths, decoder: str) -> JsonObject:
    rope: JsonDict = {"rope_type": "default", "rope_theta": shape.rope_theta}
    config: JsonDict = {
        "attention_dropout": 0.0,
        **_token_ids(shape),
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.rms_eps,
        "rope_scaling": None,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }
    if shape.intermediate:
        config["intermediate_size"] = shape.intermediate
    # Qwen2's own configs have no head_dim; readers of that generation divide, so it is written only
    # where that would be wrong.
    if shape.qk_norm or shape.head_dim * shape.heads != shape.hidden:
        config["head_dim"] = shape.head_dim
    if decoder.startswith("qwen2"):
        config |= {
            "max_window_layers": shape.layers,
            "sliding_window": None,
            "use_sliding_window": False,
        }
        if decoder == "qwen2_moe":
            config["qkv_bias"] = shape.qkv_bias
    else:
        config["attention_bias"] = False
        if decoder in ("qwen3", "qwen3_moe"):
            config |= {
                "max_window_layers": shape.layers,
                "sliding_window": None,
                "use_sliding_window": False,
            }
    if shape.experts is not None:
        config |= _experts(shape, decoder)
    if shape.hybrid is not None:
        config |= _hybrid(shape, decoder)
        if shape.draft_layers:
            config["mtp_num_hidden_layers"] = shape.draft_layers
        rope["partial_rotary_factor"] = 0.25
    if shape.model_type in _MROPE:
        rope |= {"mrope_section": mrope_section(shape), **_MROPE[shape.model_type]}
    # Both generations of transformers and of every other reader find it: beside the widths and in
    # rope_parameters.
    return {**config, "rope_theta": shape.rope_theta, "rope_parameters": rope}


def _experts(shape: Widths, decoder: str) -> JsonObject:
    experts = shape.experts
    assert experts is not None
    config: JsonDict = {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": experts.intermediate,
        "norm_topk_prob": experts.norm_topk,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
    }
    if decoder == "qwen3_5_moe":
        del config["decoder_sparse_step"], config["mlp_only_layers"]
    if experts.shared_intermediate is not None:
        config["shared_expert_intermediate_size"] = experts.shared_intermediate
    return config


def _hybrid(shape: Widths, decoder: str) -> JsonObject:
    hybrid = shape.hybrid
    assert hybrid is not None
    return {
        "full_attention_interval": hybrid.interval,
        "layer_types": layer_types(shape.layers, hybrid.interval),
        "linear_conv_kernel_dim": hybrid.conv_kernel,
        "linear_key_head_dim": hybrid.key_head_dim,
        "linear_num_key_heads": hybrid.key_heads,
        "linear_num_value_heads": hybrid.value_heads,
        "linear_value_head_dim": hybrid.value_head_dim,
        "partial_rotary_factor": 0.25,
        **(
            {"attn_output_gate": True, "mamba_ssm_dtype": "float32"}
            if decoder.startswith("qwen3_5")
            else {}
        ),
    }


def _first_generation(shape: Widths) -> JsonObject:
    return {
        "attn_dropout_prob": 0.0,
        "bf16": True,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * shape.intermediate,
        "kv_channels": shape.head_dim,
        "layer_norm_epsilon": shape.rms_eps,
        "max_position_embeddings": shape.context,
        "no_bias": True,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "rotary_emb_base": shape.rope_theta,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": shape.context,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "vocab_size": shape.vocab,
    }


def _token_ids(shape: Widths) -> JsonObject:
    large = shape.vocab >= 248_320
    if shape.vocab <= _END_OF_TURN[large]:
        return {}
    return {"bos_token_id": _END_OF_TEXT[large], "eos_token_id": _END_OF_TURN[large]}
