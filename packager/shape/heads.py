"""The draft module for multi-token prediction: one more layer of full attention behind the last
one, which reads the decoder's hidden state and the embedding of the token that was said.

Source: the weight maps of Qwen/Qwen3-Next-80B-A3B-Instruct and Qwen/Qwen3.5-0.8B (names), and
llama.cpp, src/models/qwen35.cpp (what is computed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from packager.shape.model import Widths
from packager.shape.names import ExpertLayout
from packager.shape.tensors import TensorSpec, layer_tensors, naming_of

PREFIX = "mtp."
DECODERS = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
"""The decoders whose checkpoints bring such a module, by the model type of text alone."""
LAYERS = 1
"""Layers of the module in every published checkpoint."""


def may_have(shape: Widths) -> bool:
    """Whether checkpoints of this generation bring a draft module."""
    return shape.hybrid is not None and shape.task == "generate"


def tensors(shape: Widths, experts: ExpertLayout | None = None) -> Iterator[TensorSpec]:
    """Names and shapes of the module for a decoder; `experts` as the files have them."""
    assert shape.hybrid is not None
    hidden = shape.hidden
    yield TensorSpec(f"{PREFIX}fc.weight", (hidden, 2 * hidden))
    naming = naming_of(shape)
    naming = replace(naming, body=PREFIX, experts=experts or naming.experts)
    full = shape.hybrid.interval - 1
    for spec in layer_tensors(shape, full, naming):
        yield replace(spec, name=spec.name.replace(f"layers.{full}.", "layers.0.", 1))
    for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        yield TensorSpec(f"{PREFIX}{name}.weight", (hidden,))


def parameters(shape: Widths) -> int:
    """Numbers of the module; 0 for a shape without."""
    if not shape.draft_layers:
        return 0
    return sum(prod(spec.shape) for spec in tensors(shape, "fused"))
