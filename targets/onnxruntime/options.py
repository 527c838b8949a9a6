"""Options of ONNX Runtime's sessions that this process was told to set, see ladder.toml."""

from __future__ import annotations

import os

VARIABLE = "QWEN_PACK_ONNXRUNTIME_OPTIONS"
"""`key=value`, several with a semicolon between them."""


def session_options() -> dict[str, str]:
    """Configuration entries of every session that is opened; empty where nothing was said."""
    pairs = (entry.partition("=") for entry in os.environ.get(VARIABLE, "").split(";") if entry)
    return {key.strip(): value.strip() for key, _, value in pairs}
