"""From a Hugging Face config.json to a Shape.

Defaults are those of transformers 5.5's configuration classes, which decide what a checkpoint means
where its file is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packager.errors import bad_input
from packager.limits import EXPERTS, LAYERS
from packager.shape.fields import Fields
from packager.shape.model import AnyShape, Experts, Hybrid
from packager.shape.names import FIRST_GENERATION, KNOWN_TYPES, NAMINGS, Naming, config_path
from packager.shape.positions import theta_of

_KV_HEADS = {
    "qwen2": 32,
    "qwen2_moe": 16,
    "qwen2_vl": 8,
    "qwen2_5_vl": 8,
    "qwen2_audio": 32,
    "qwen2_5_omni": 4,
    "qwen3": 32,
    "qwen3_moe": 4,
    "qwen3_vl": 32,
    "qwen3_vl_moe": 16,
    "qwen3_omni_moe": 4,
    "qwen3_asr": 32,
    "qwen3_next": 2,
    "qwen3_5": 4,
    "qwen3_5_text": 4,
    "qwen3_5_moe": 2,
    "qwen3_5_moe_text": 2,
}
_HEAD_DIM = {"qwen3": 128, "qwen3_next": 256, "qwen3_5": 256, "qwen3_5_moe": 256}
_THETA = {
    "qwen2_vl": 1e6,
    "qwen2_5_vl": 1e6,
    "qwen2_5_omni": 1e6,
    "qwen3_omni_moe": 1e6,
    "qwen3_vl": 5e5,
    "qwen3_vl_moe": 5e5,
    "qwen3_asr": 5e6,
}
_EPSILON = {"qwen2_vl": 1e-5, "qwen2_5_vl": 1e-5}
_CONTEXT = {"qwen3_vl": 128_000, "qwen3_vl_moe": 128_000, "qwen3_asr": 128_000}
# The official Qwen2-Audio configs leave these to Qwen2Config.
_AUDIO_DECODER = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}


def from_config(kind: type[AnyShape], config: Mapping[str, Any], where: str) -> AnyShape:
    """The shape that a config.json describes, as a `kind` of one.

    Raises PackError (exit code 6) that names `where` and the key.
    """
    if not isinstance(config, Mapping):
        raise bad_input(f"{where} holds no JSON object.", "Take the config.json of the checkpoint.")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in NAMINGS:
        raise bad_input(
            f"{where}: model_type {model_type!r} is not a known Qwen type.",
            f"Known: {', '.join(KNOWN_TYPES)}.",
        )
    naming = NAMINGS[model_type]
    fields, tied = _text_decoder(config, naming, where)
    if naming.decoder == FIRST_GENERATION:
        return _first_generation(kind, fields, tied)
    defaults = _AUDIO_DECODER if model_type == "qwen2_audio" else {}
    hidden = fields.count("hidden_size", defaults.get("hidden_size"))
    heads = fields.count("num_attention_heads", defaults.get("num_attention_heads"))
    kv_heads = fields.count(
        "num_key_value_heads",
        heads if fields.is_null("num_key_value_heads") else _KV_HEADS[model_type],
    )
    if heads % kv_heads:
        raise fields.wrong(
            "num_key_value_heads",
            f"is {kv_heads}, which does not divide num_attention_heads = {heads}",
        )
    if fields.flag("attention_bias", False):
        raise fields.wrong("attention_bias", "is true, which no Qwen decoder has")
    experts = _experts(fields, naming)
    layers = _layers(fields, defaults.get("num_hidden_layers"))
    return kind(
        model_type=model_type,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.count("head_dim", _HEAD_DIM.get(naming.decoder, hidden // heads)),
        intermediate=fields.count("intermediate_size")
        if experts is None or "intermediate_size" in fields
        else 0,
        vocab=fields.count("vocab_size"),
        tied=tied,
        qkv_bias=fields.flag("qkv_bias", True)
        if naming.decoder == "qwen2_moe"
        else naming.decoder == "qwen2",
        qk_norm=not naming.decoder.startswith("qwen2"),
        context=fields.count("max_position_embeddings", _CONTEXT.get(model_type, 32_768)),
        rope_theta=theta_of(fields, _THETA.get(model_type, 10_000.0)),
        rms_eps=fields.number("rms_norm_eps", _EPSILON.get(model_type, 1e-6)),
        experts=experts,
        hybrid=_hybrid(fields, layers)
        if naming.decoder in ("qwen3_next", "qwen3_5", "qwen3_5_moe")
        else None,
    )


def _text_decoder(config: Mapping[str, Any], naming: Naming, where: str) -> tuple[Fields, bool]:
    """The text decoder's own table, and whether the outermost table that says so ties the output
    matrix."""
    fields = Fields(config, where)
    tables = [fields]
    for key in config_path(config, naming):
        fields = fields.table(key)
        tables.append(fields)
    tied = next(
        (
            table.flag("tie_word_embeddings", False)
            for table in tables
            if "tie_word_embeddings" in table
        ),
        False,
    )
    return fields, tied


def _first_generation(kind: type[AnyShape], fields: Fields, tied: bool) -> AnyShape:
    hidden, heads, width = (
        fields.count("hidden_size"),
        fields.count("num_attention_heads"),
        fields.count("intermediate_size"),
    )
    if width % 2:
        raise fields.wrong(
            "intermediate_size",
            f"is {width}, but the first generation stores the widths of w1 and w2 together",
        )
    return kind(
        model_type=FIRST_GENERATION,
        hidden=hidden,
        layers=_layers(fields),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.count("kv_channels", hidden // heads),
        intermediate=width // 2,
        vocab=fields.count("vocab_size"),
        tied=tied,
        qkv_bias=True,
        qk_norm=False,
        context=fields.count("max_position_embeddings", 8192),
        rope_theta=fields.number("rotary_emb_base", 10_000.0),
        rms_eps=fields.number("layer_norm_epsilon", 1e-6),
    )


def _experts(fields: Fields, naming: Naming) -> Experts | None:
    if not naming.decoder.endswith(("_moe", "_next")):
        return None
    if fields.count("decoder_sparse_step", 1) != 1 or fields.listing("mlp_only_layers"):
        raise fields.wrong(
            "mlp_only_layers",
            "or decoder_sparse_step leaves some layers dense, which no published Qwen does",
        )
    shared = naming.decoder != "qwen3_moe"
    # transformers 5 saves Qwen3-MoE's count under a name that it shares with other families.
    key = "num_local_experts" if "num_local_experts" in fields else "num_experts"
    count = fields.count(key)
    if count > EXPERTS:
        raise fields.wrong(key, f"is {count}, and no Qwen has more than {EXPERTS} experts")
    return Experts(
        count=count,
        active=fields.count("num_experts_per_tok"),
        intermediate=fields.count("moe_intermediate_size"),
        shared_intermediate=fields.count("shared_expert_intermediate_size") if shared else None,
        # Qwen3.5's router always normalizes and its configuration class has no such key.
        norm_topk=fields.flag("norm_topk_prob", naming.decoder in ("qwen3_next", "qwen3_5_moe")),
    )


def _layers(fields: Fields, default: int | None = None) -> int:
    """Tensors are listed layer by layer, so their number is bounded before any is."""
    layers = fields.count("num_hidden_layers", default)
    if layers > LAYERS:
        raise fields.wrong(
            "num_hidden_layers", f"is {layers}, and no Qwen has more than {LAYERS} layers"
        )
    return layers


def _hybrid(fields: Fields, layers: int) -> Hybrid:
    kinds = fields.listing("layer_types")
    interval = (
        kinds.index("full_attention") + 1
        if "full_attention" in kinds
        else fields.count("full_attention_interval", 4)
    )
    if kinds and kinds != layer_types(layers, interval):
        raise fields.wrong(
            "layer_types", f"is not {layers} layers with full attention at every {interval}th"
        )
    return Hybrid(
        interval=interval,
        key_heads=fields.count("linear_num_key_heads", 16),
        value_heads=fields.count("linear_num_value_heads", 32),
        key_head_dim=fields.count("linear_key_head_dim", 128),
        value_head_dim=fields.count("linear_value_head_dim", 128),
        conv_kernel=fields.count("linear_conv_kernel_dim", 4),
    )


def layer_types(layers: int, interval: int) -> list[str]:
    """The layer_types of a hybrid config: full attention at every `interval`-th layer."""
    return [
        "linear_attention" if (layer + 1) % interval else "full_attention"
        for layer in range(layers)
    ]
