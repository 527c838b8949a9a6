"""Execution providers: which one an artifact is made for, and whether it is here."""

from __future__ import annotations

from typing import Any

from packager.errors import NotHere
from packager.json_values import JsonObject, object_at, objects_at

_NAMES = {"cuda": "CUDA", "dml": "DirectML", "webgpu": "WebGPU"}
_WAY_ON = {
    "cuda": "Run it on a machine with an NVIDIA GPU after: pip install onnxruntime-genai-cuda",
    "dml": "Run it under Windows with a GPU after: pip install onnxruntime-genai-directml",
    "webgpu": "Run it with a build of ONNX Runtime that has the WebGPU execution provider.",
}


def of(config: JsonObject) -> str:
    """The provider that a genai_config.json asks for: cpu when it names none."""
    decoder = object_at(object_at(config, "model"), "decoder")
    options = objects_at(object_at(decoder, "session_options"), "provider_options")
    names = [str(name).lower() for entry in options for name in entry]
    return names[0] if names else "cpu"


def names(provider: str) -> list[str]:
    """The providers that onnxruntime itself is asked for, the CPU last: for what the first one does
    not compute."""
    own = {"cuda": "CUDAExecutionProvider", "dml": "DmlExecutionProvider"}
    own["webgpu"] = "WebGpuExecutionProvider"
    return [*([own[provider]] if provider in own else []), "CPUExecutionProvider"]


def require(provider: str, engine: Any) -> None:
    """Raise NotHere (usage) unless `engine`, the module onnxruntime_genai, can run that provider on
    this machine."""
    if provider == "cpu":
        return
    available = getattr(engine, f"is_{provider}_available", None)
    if available is None or not available():
        raise NotHere(
            f"This package is made for {_NAMES.get(provider, provider)}, which ONNX Runtime does "
            "not have on this machine.",
            _WAY_ON.get(provider, "Build it for the CPU instead."),
        )
