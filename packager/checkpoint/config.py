"""The shape that a config.json describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.shape import Shape

_SUPPORTED = "Dense Qwen2, Qwen2.5 and Qwen3 checkpoints are (model_type qwen2 or qwen3)."


def read_shape(path: Path, config: dict[str, Any]) -> Shape:
    """The shape of a dense Qwen2, Qwen2.5 or Qwen3 checkpoint. Raises PackError (exit code 6) naming file and key."""
    model_type = config.get("model_type")
    if model_type not in ("qwen2", "qwen3"):
        raise bad_input(f"{path}: model_type {model_type!r} is not supported.", _SUPPORTED)
    hidden, heads = _count(path, config, "hidden_size"), _count(path, config, "num_attention_heads")
    kv_heads = _count(path, config, "num_key_value_heads", heads)
    head_dim = _count(path, config, "head_dim", hidden // heads if model_type == "qwen2" else 128)
    if heads % kv_heads:
        raise bad_input(f"{path}: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}.")
    return Shape(
        model_type=model_type,
        hidden=hidden,
        layers=_count(path, config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_count(path, config, "intermediate_size"),
        vocab=_count(path, config, "vocab_size"),
        tied=_flag(path, config, "tie_word_embeddings"),
        qkv_bias=model_type == "qwen2" or _flag(path, config, "attention_bias"),
        qk_norm=model_type == "qwen3",
        context=_count(path, config, "max_position_embeddings", 32768),
        rope_theta=_number(path, config, "rope_theta", 10_000.0),
        rms_eps=_number(path, config, "rms_norm_eps", 1e-6),
    )


def _count(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if value is None and default is not None:
        value = default
    if type(value) is not int or not 0 < value < 1 << 31:
        raise bad_input(f"{path}: {key} is {'missing' if key not in config else f'{value!r}, no positive whole number'}.")
    return value


def _number(path: Path, config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise bad_input(f"{path}: {key} is {value!r}, no positive number.")
    return float(value)


def _flag(path: Path, config: dict[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise bad_input(f"{path}: {key} is {value!r}, neither true nor false.")
    return value


def write_config(shape: Shape) -> dict[str, Any]:
    """The config.json of a dense shape, with the keys that Qwen's own have; token ids and storage type are left to the caller."""
    qwen3 = shape.model_type == "qwen3"
    return {
        "architectures": ["Qwen3ForCausalLM" if qwen3 else "Qwen2ForCausalLM"],
        **({"attention_bias": shape.qkv_bias, "head_dim": shape.head_dim} if qwen3 else {}),
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "max_window_layers": shape.layers,
        "model_type": shape.model_type,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.rms_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocab,
    }
