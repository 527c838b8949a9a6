"""One module per Qwen architecture; which one reads a checkpoint follows from config.json's
`model_type`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from packager.errors import bad_input
from packager.json_values import JsonObject
from packager.names import did_you_mean

if TYPE_CHECKING:
    from targets.gguf.arch.base import Architecture

_MODULES = {
    "qwen": "qwen:Qwen",
    "qwen2": "qwen2:Qwen2",
    "qwen3": "qwen3:Qwen3",
    "qwen2_vl": "qwen2vl:Qwen2Vl",
    "qwen2_5_vl": "qwen2vl:Qwen2Vl",
    "qwen2_5_omni": "qwen2vl:Qwen25Omni",
    "qwen3_vl": "qwen3vl:Qwen3Vl",
    "qwen3_vl_moe": "qwen3vl:Qwen3VlMoe",
    "qwen3_asr": "qwen3asr:Qwen3Asr",
    "qwen2_audio": "qwen2audio:Qwen2Audio",
    "qwen2_moe": "qwen2moe:Qwen2Moe",
    "qwen3_moe": "qwen3moe:Qwen3Moe",
    "qwen3_next": "qwen3next:Qwen3Next",
    "qwen3_5": "qwen35:Qwen35",
    "qwen3_5_text": "qwen35:Qwen35",
    "qwen3_5_moe": "qwen35:Qwen35Moe",
    "qwen3_5_moe_text": "qwen35:Qwen35Moe",
}

MODEL_TYPES = tuple(_MODULES)
"""Every `model_type` that can be converted."""


def architecture(config: JsonObject) -> Architecture:
    """The converter for that configuration. Raises PackError (bad input) naming an unknown
    `model_type`."""
    model_type = config.get("model_type")
    module_and_class = _MODULES.get(model_type) if isinstance(model_type, str) else None
    if module_and_class is None:
        raise bad_input(
            f"config.json names the model_type {model_type!r}, which llama.cpp's Qwen converters "
            "do not know."
            f"{did_you_mean(str(model_type), _MODULES)}",
            f"Known: {', '.join(_MODULES)}.",
        )
    # Late: the gguf package brings numpy, which planning does not need.
    module, _, name = module_and_class.partition(":")
    converter: type[Architecture] = getattr(import_module(f"targets.gguf.arch.{module}"), name)
    return converter(config)
