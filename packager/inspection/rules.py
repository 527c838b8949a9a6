"""keys.toml, read once: what the files of a package may say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packager.json_values import JsonObject

_CONFIGURATIONS = (
    *("genai_config", "generation_config", "openvino_config"),
    *("preprocessor_config", "retrieval", "tokenizer"),
)


@dataclass(frozen=True)
class Rules:
    """`configurations` maps the name of a JSON file, without its ending, to its keys; see keys.toml
    for the kinds of values."""

    configurations: JsonObject
    along: frozenset[str]
    naming_code: frozenset[str]
    onnx_domains: frozenset[str]
    microsoft_operators: frozenset[str]
    openvino_extension: frozenset[str]
    runtime_options: frozenset[str]
    ggml: dict[int, tuple[int, int]]


@cache
def rules() -> Rules:
    """The rules as they stand beside this file."""
    data = tomllib.loads(Path(__file__).with_name("keys.toml").read_text(encoding="utf-8"))
    return Rules(
        configurations={name: data[name] for name in _CONFIGURATIONS},
        along=frozenset(data["naming_code"]["files"]),
        naming_code=frozenset(data["naming_code"]["keys"]),
        onnx_domains=frozenset(data["onnx"]["domains"]),
        microsoft_operators=frozenset(data["onnx"]["microsoft"]),
        openvino_extension=frozenset(data["openvino"]["extension"]),
        runtime_options=frozenset(data["openvino"]["runtime_options"]),
        ggml={int(number): (size[0], size[1]) for number, size in data["ggml"].items()},
    )
