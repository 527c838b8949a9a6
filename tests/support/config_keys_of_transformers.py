"""The keys of config.json that the installed transformers reads, by model type; run as a program it
writes config_keys.json.

Read out of the sources: the fields of the configuration class, what its base class takes from
config.json besides, and every `config.KEY` and `getattr(config, "KEY")` of the modelling file and
of the files that all models share.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "packager" / "shape" / "config_keys.json"

CLASSES = {
    "qwen2": "Qwen2Config",
    "qwen2_moe": "Qwen2MoeConfig",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
    "qwen3_next": "Qwen3NextConfig",
    "qwen3_5": "Qwen3_5TextConfig",
    "qwen3_5_moe": "Qwen3_5MoeTextConfig",
}
SHARED = (
    "masking_utils.py",
    "modeling_rope_utils.py",
    "modeling_utils.py",
    "cache_utils.py",
    "integrations/moe.py",
)
CONFIGURATION = "configuration_utils.py"


def keys() -> dict[str, Any]:
    """The content of config_keys.json."""
    transformers = importlib.import_module("transformers")
    root = Path(transformers.__file__).parent
    general = _fields(transformers.PreTrainedConfig)
    general |= _popped(root / CONFIGURATION) | _popped(root / "modeling_rope_utils.py")
    common = {*general, *(key for name in SHARED for key in _read(root / name))}
    found = {
        "transformers": transformers.__version__,
        "common": sorted(common - _methods(transformers.PreTrainedConfig)),
    }
    for model_type, name in CLASSES.items():
        module = f"transformers.models.{model_type}.configuration_{model_type}"
        fields = _fields(getattr(importlib.import_module(module), name))
        folder = root / "models" / model_type
        own = (
            fields
            | _read(folder / f"modeling_{model_type}.py")
            | _popped(folder / f"configuration_{model_type}.py")
        )
        found[model_type] = sorted(own - common - _methods(transformers.PreTrainedConfig))
    return found


def _fields(configuration: Any) -> set[str]:
    """The fields of a configuration class, and the other names that it has for some of them."""
    return {field.name for field in dataclasses.fields(configuration)} | set(
        configuration.attribute_map.values()
    )


def _read(file: Path) -> set[str]:
    """Attributes that are asked of something called config."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            found.add(node.attr)
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", None) in ("getattr", "hasattr")
            and _is_config(node.args[0])
        ):
            found |= {
                argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)
            }
    return {name for name in found if not name.startswith("__")}


def _is_config(node: ast.AST) -> bool:
    return getattr(node, "id", getattr(node, "attr", None)) in ("config", "text_config")


def _popped(file: Path) -> set[str]:
    """Keys that are taken out of what config.json holds besides the fields."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and getattr(node.func.value, "id", None) == "kwargs"
        ):
            found |= {
                argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)
            }
    return found & _KEYS_OF_NETWORKS


_KEYS_OF_NETWORKS = {
    "rope_scaling",
    "rope_theta",
    "partial_rotary_factor",
    "full_attention_interval",
    "torch_dtype",
    "attn_implementation",
}
"""Of what is popped there, the rest are arguments of `from_pretrained`, which no config.json
holds."""


def _methods(configuration: Any) -> set[str]:
    methods = {name for name in dir(configuration) if callable(getattr(configuration, name, None))}
    return (
        methods
        | {name for name in dir(configuration) if name.startswith("base_model_")}
        | {"sub_configs"}
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps(keys(), indent=2) + "\n")
