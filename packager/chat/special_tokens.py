"""The tokens that a chat template may name: what transformers passes as variables to every
template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)

# What Qwen2Tokenizer takes where its configuration has no such key; a null there stays a null.
_DEFAULTS = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
# Classes that have no defaults of their own.
_WITHOUT_DEFAULTS = ("PreTrainedTokenizerFast", "TokenizersBackend")


def special_tokens(
    tokenizer_config: Mapping[str, Any], special_tokens_map: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Variable -> text, as `PreTrainedTokenizerBase.special_tokens_map` of transformers 5 has them.

    `special_tokens_map` is the file of that name: it counts where tokenizer_config.json lists no
    added tokens, as in transformers.
    """
    values = dict(tokenizer_config)
    if "added_tokens_decoder" not in values:
        values |= dict(special_tokens_map or {})
    if str(values.get("tokenizer_class")) not in _WITHOUT_DEFAULTS:
        values = {**_DEFAULTS, **values}
    named = {key: text_of(values.get(key)) for key in NAMED}
    extra = values.get("extra_special_tokens")
    more = {key: value for key, value in values.items() if key.endswith("_token")}
    more |= extra if isinstance(extra, dict) else {}
    own = {key: text_of(value) for key, value in more.items() if key not in NAMED}
    return {key: text for key, text in {**named, **own}.items() if text is not None}


def text_of(token: Any) -> str | None:
    """The text of a token as a configuration writes it: plain, or as an object with its flags."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None
