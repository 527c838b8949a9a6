"""llama.cpp with the engine of `qwen-pack serve`, whose modules an export holds as well: it drafts,
takes pictures and sound, and computes once what a prompt has in common with the one before it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from .settings import Settings

# Any: modules that are named here and imported when they are needed.

_ENGINE = "targets.llama_cpp.serving"
_LIBRARY = "targets.gguf.library"
_ALL_LAYERS = 1 << 20


def opened(settings: Settings, unit: str) -> Any:
    """The engine of a package. Raises ImportError where a module is missing that a request
    needs."""
    wanted = [*(["PIL"] if settings.sees else []), *(["soundfile", "soxr"] * settings.hears)]
    for name in wanted:
        # Missed now, and not by the first request.
        import_module(name)
    if os.environ.get("LLAMA_ARG_REPACK") == "0":
        os.environ[import_module(_LIBRARY).EXTRA_BUFFERS] = "0"
    options = dict(settings.session)
    if unit != "CPU" and not options.get("gpu_layers"):
        options["gpu_layers"] = _ALL_LAYERS
    return import_module(_ENGINE).Engine(settings, options, Path(os.devnull))


Engine = opened
"""What the server asks each of these modules for."""
