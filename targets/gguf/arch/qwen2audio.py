"""The text decoder of Qwen2-Audio: a dense one of the second generation, as wide as Qwen-7B."""

from __future__ import annotations

from packager.json_values import JsonObject
from targets.gguf.arch.qwen2 import Qwen2

_SILENT = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
}
"""What the official config.json leaves to the class Qwen2Config of transformers."""


class Qwen2Audio(Qwen2):
    """llama.cpp knows it as Qwen2."""

    def __init__(self, config: JsonObject) -> None:
        text = config.get("text_config")
        inner: JsonObject = text if isinstance(text, dict) else {}
        super().__init__({**config, "text_config": {**_SILENT, **inner}})

    def new_name(self, name: str) -> str:
        """The decoder is one level deeper."""
        return super().new_name(name.removeprefix("language_model."))
