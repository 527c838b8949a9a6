"""What the model builder cannot build, as sentences."""

from __future__ import annotations

from packager.shape import Shape, as_qwen2
from targets.onnxruntime import sizes
from targets.onnxruntime.quantization import Settings

_BUILDABLE = ("qwen2", "qwen3")
_KINDS = {
    "qwen2_moe": "Qwen2-MoE",
    "qwen3_moe": "Qwen3-MoE",
    "qwen3_next": "Qwen3-Next",
}
RETRIEVAL_TYPES = ("qwen3",)
"""Model types whose embedders and rerankers are built: published embedders of the others look both
ways."""
_NO_PICTURES = (
    "ONNX Runtime takes no pictures here: GenAI 0.18 drops the DeepStack states of Qwen3-VL, and "
    "its model builder writes no graph of a vision tower; llama.cpp takes pictures."
)
_ROTARY_STEP = 16
"""Widths of heads that GroupQueryAttention takes with rotary positions. Source:
CheckRotaryCaches of onnxruntime, contrib_ops/cpu/bert/group_query_attention_helper.h; it
speaks at the first token."""


def of_shape(shape: Shape) -> str | None:
    """Why no recipe builds this shape; None when one can. Source: the architectures in
    onnxruntime-genai 0.18's builder."""
    if shape.vision is not None:
        return _NO_PICTURES
    kind = _KINDS.get(shape.model_type)
    if kind is not None:
        return f"The model builder of ONNX Runtime GenAI does not know {kind}."
    if as_qwen2(shape).model_type not in _BUILDABLE or not shape.dense:
        return (
            "The ONNX Runtime adapter builds dense text models of the generations up to Qwen3; "
            f"this one is {shape.model_type!r}."
        )
    if shape.task != "generate" and shape.model_type not in RETRIEVAL_TYPES:
        return (
            f"ONNX Runtime makes vectors and scores of {', '.join(RETRIEVAL_TYPES)} here; this one "
            f"is {shape.model_type}."
        )
    if shape.head_dim % _ROTARY_STEP:
        return (
            f"ONNX Runtime turns heads whose width is a multiple of {_ROTARY_STEP}; these have "
            f"{shape.head_dim}."
        )
    return None


def of_recipe(shape: Shape, settings: Settings) -> str | None:
    """Why the recipe does not suit the shape; None when it does."""
    if settings.repack and shape.task != "generate":
        return "--repack takes text generators alone with ONNX Runtime."
    if shape.task != "generate" and settings.provider != "cpu":
        return f"Vectors and scores are built for the CPU, not for {settings.provider}."
    return of_blocks(shape, settings)


def of_blocks(shape: Shape, settings: Settings) -> str | None:
    """Why the rows of this shape do not suit the recipe's blocks; None when they do."""
    quantization = settings.layers
    if quantization is None:
        return None
    columns = {columns for _, _, columns in sizes.matrices(shape)}
    if quantization.zero_points and quantization.bits == 4:
        # Zero points of 4 bits are packed in pairs along a row, and the builder does not pad them.
        odd = sorted(width for width in columns if quantization.blocks(width) % 2)
        if odd:
            count = quantization.blocks(odd[0])
            return (
                f"Rows of {odd[0]} weights make {count} blocks of {quantization.block}: zero "
                "points are packed in pairs."
            )
    return None
