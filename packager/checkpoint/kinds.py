"""What kind of value each setting of a checkpoint has that anything here or in an engine's
converter reads, so that one from outside cannot surprise a reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.foreign import GET_AGAIN

Kind = tuple[str, Callable[[Any], bool]]
"""What a value is, in words, and the test of it."""


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold; NaN, infinity and truth values are none."""
    return type(value) in (int, float) and abs(value) < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _is_token(value: Any) -> bool:
    """A token as text, or as the object that the tokenizers library writes of it."""
    return _is_text(value) or (isinstance(value, dict) and _is_text(value.get("content")))


def _are_tokens(value: Any) -> bool:
    rows = list(value.values()) if isinstance(value, dict) else value
    return _list_of(_is_token)(rows)


def _are_added(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isascii()
        and key.isdigit()
        and len(key) < 10
        and isinstance(entry, dict)
        and _is_text(entry.get("content"))
        for key, entry in value.items()
    )


_WHOLE: Kind = ("a whole number", _is_whole)
_WHOLES: Kind = ("a list of whole numbers", _list_of(_is_whole))
_NUMBER: Kind = ("a number", is_number)
_TEXT: Kind = ("a text", _is_text)
_TEXTS: Kind = ("a list of texts", _list_of(_is_text))
_FLAG: Kind = ("true or false", lambda value: isinstance(value, bool))
_TABLE: Kind = ("an object", lambda value: isinstance(value, dict))
_IDS: Kind = (
    "a token id or a list of them",
    lambda value: _is_whole(value) or _list_of(_is_whole)(value),
)
_TOKEN: Kind = ("a token", _is_token)

_SHOWN = 60
_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

_ROPE: dict[str, Kind] = {
    **dict.fromkeys(("type", "rope_type"), _TEXT),
    **dict.fromkeys(
        (
            "factor",
            "rope_theta",
            "partial_rotary_factor",
            "original_max_position_embeddings",
            "extrapolation_factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
        ),
        _NUMBER,
    ),
    "mrope_section": _WHOLES,
    **dict.fromkeys(("long_factor", "short_factor"), ("a list of numbers", _list_of(is_number))),
}

CONFIG: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "kv_channels",
            "intermediate_size",
            "vocab_size",
            "max_position_embeddings",
            "seq_length",
            "num_experts",
            "num_local_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "decoder_sparse_step",
            "full_attention_interval",
            "sliding_window",
            "max_window_layers",
            "linear_num_key_heads",
            "linear_num_value_heads",
            "linear_key_head_dim",
            "linear_value_head_dim",
            "linear_conv_kernel_dim",
        ),
        _WHOLE,
    ),
    **dict.fromkeys(
        (
            "rms_norm_eps",
            "layer_norm_epsilon",
            "rope_theta",
            "rotary_emb_base",
            "rotary_pct",
            "partial_rotary_factor",
        ),
        _NUMBER,
    ),
    **dict.fromkeys(
        (
            "tie_word_embeddings",
            "attention_bias",
            "qkv_bias",
            "no_bias",
            "use_sliding_window",
            "norm_topk_prob",
            "use_dynamic_ntk",
            "use_logn_attn",
        ),
        _FLAG,
    ),
    **dict.fromkeys(
        ("rope_scaling", "rope_parameters", "text_config", "vision_config", "thinker_config"),
        _TABLE,
    ),
    **dict.fromkeys((f"{kind}_token_id" for kind in _SPECIAL), _IDS),
    **dict.fromkeys(("model_type", "_name_or_path", "torch_dtype", "dtype", "hidden_act"), _TEXT),
    **dict.fromkeys(("architectures", "layer_types"), _TEXTS),
    "mlp_only_layers": _WHOLES,
}
"""config.json, and the text_config and thinker_config in it."""

TOKENIZER_CONFIG: dict[str, Kind] = {
    **dict.fromkeys((f"{kind}_token" for kind in _SPECIAL), _TOKEN),
    **dict.fromkeys((f"add_{kind}_token" for kind in _SPECIAL), _FLAG),
    **dict.fromkeys(
        ("additional_special_tokens", "extra_special_tokens"), ("a list of tokens", _are_tokens)
    ),
    "added_tokens_decoder": ("an object of tokens by their ids", _are_added),
    "model_max_length": _NUMBER,
    "padding_side": _TEXT,
    "tokenizer_class": _TEXT,
    "clean_up_tokenization_spaces": _FLAG,
}

GENERATION_CONFIG: dict[str, Kind] = {
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p", "repetition_penalty"), _NUMBER),
    **dict.fromkeys(("top_k", "max_new_tokens", "max_length", "max_window_size"), _WHOLE),
    **dict.fromkeys((f"{kind}_token_id" for kind in _SPECIAL), _IDS),
    "do_sample": _FLAG,
    "chat_format": _TEXT,
}


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Raise PackError (exit code 6) naming the first setting of config.json that is of the wrong
    kind. Null counts as absent."""
    _check(path, config, CONFIG, "")
    tables: list[tuple[str, Mapping[str, Any]]] = [("", config)]
    for key in ("thinker_config", "text_config"):
        for prefix, table in tuple(tables):
            if inner := table.get(key):
                _check(path, inner, CONFIG, f"{prefix}{key}.")
                tables.append((f"{prefix}{key}.", inner))
    for prefix, table in tables:
        for key in ("rope_scaling", "rope_parameters"):
            _check(path, table.get(key) or {}, _ROPE, f"{prefix}{key}.")


def check_tokenizer_config(path: Path, config: Mapping[str, Any]) -> None:
    """The same of tokenizer_config.json."""
    _check(path, config, TOKENIZER_CONFIG, "")


def check_generation_config(path: Path, config: Mapping[str, Any]) -> None:
    """The same of generation_config.json."""
    _check(path, config, GENERATION_CONFIG, "")


def _check(path: Path, table: Mapping[str, Any], kinds: Mapping[str, Kind], prefix: str) -> None:
    for key, (words, test) in kinds.items():
        value = table.get(key)
        if value is not None and not test(value):
            raise bad_input(
                f"{path}: {prefix}{key} is {_shown(value)}, and not {words}.", GET_AGAIN
            )


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value)[:_SHOWN]
