"""Under which names ONNX Runtime and its GenAI library are installed: one module each, which comes
in several distributions, one for each kind of processor."""

from __future__ import annotations

from importlib import metadata

_GENAI = ("onnxruntime-genai-cuda", "onnxruntime-genai-directml", "onnxruntime-genai-winml")
_RUNTIME = (
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-webgpu",
)


def engine_distributions() -> tuple[str, str]:
    """The distributions of the GenAI library and of the runtime that are installed here; the plain
    ones for the processor where none is.

    Where two are, as happens when one for a GPU is installed over the plain one, the modules are
    those of the GPU's.
    """
    return _installed(_GENAI, "onnxruntime-genai"), _installed(_RUNTIME, "onnxruntime")


def _installed(special: tuple[str, ...], plain: str) -> str:
    for name in special:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return plain
