"""Tiny checkpoints with vision towers of every generation, in both layouts of names, and what a
GGUF of one says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf

from packager.shape import Experts, Hybrid, Shape, Tower
from tests.support.damage import WEIGHTS, edit_header
from tests.support.make_checkpoint import tiny_shape, write_tiny

IMAGE_TOKENS = 64
SINUSOIDS = "a.position_embd.weight"
_TOWERS = {
    # Blocks of 32 do not divide 72: what a type of 8 bits leaves in half precision.
    "qwen2_vl": Tower("qwen2_vl", 32, 128, 4, 2, 14, 64),
    "qwen2_5_vl": Tower("qwen2_5_vl", 32, 72, 4, 2, 14, 64, full_attention=(1, 3)),
    "qwen2_5_omni": Tower("qwen2_5_omni", 32, 72, 4, 2, 14, 64, full_attention=(1, 3)),
    "qwen3_vl": Tower("qwen3_vl", 32, 72, 4, 2, 16, 64, positions=36, deepstack=(0, 1, 3)),
    "qwen3_vl_moe": Tower("qwen3_vl", 32, 72, 4, 2, 16, 64, positions=36, deepstack=(0, 1, 3)),
    "qwen3_5": Tower("qwen3_vl", 32, 96, 4, 2, 16, 64, positions=36),
}
_HYBRID = Hybrid(4, key_heads=2, value_heads=4, key_head_dim=16, value_head_dim=16, conv_kernel=4)


def _shape(model_type: str) -> Shape:
    generation = "qwen2" if model_type.startswith("qwen2") else "qwen3"
    shape = replace(tiny_shape(generation, layers=4, tied=False), model_type=model_type)
    if model_type == "qwen3_5":
        shape = replace(shape, hybrid=_HYBRID)
    if model_type == "qwen3_vl_moe":
        shape = replace(shape, experts=Experts(4, 2, 32, norm_topk=True))
    return shape.seeing(_TOWERS[model_type], IMAGE_TOKENS)


SHAPES = {model_type: _shape(model_type) for model_type in _TOWERS}

SAVED = {
    "qwen2_vl": ("visual.", "model.visual."),
    "qwen2_5_vl": ("visual.", "model.visual."),
    "qwen2_5_omni": ("thinker.visual.", "thinker.visual."),
    "qwen3_vl": ("model.visual.", "model.visual."),
    "qwen3_vl_moe": ("model.visual.", "model.visual."),
    "qwen3_5": ("model.visual.", "model.language_model.visual."),
}
"""The beginning of the tower's names on the hub, and where transformers 5.5 saved the model."""


def write_seeing(folder: Path, model_type: str, **writing: Any) -> Path:
    """A checkpoint with a tower, under the hub's names."""
    return write_tiny(folder, shape=SHAPES[model_type], **writing)


def as_saved(folder: Path, model_type: str) -> Path:
    """The same checkpoint under the names that transformers 5.5 gives its tensors."""
    hub, saved = SAVED[model_type]

    def rename(header: dict[str, Any]) -> dict[str, Any]:
        return {
            saved + name.removeprefix(hub) if name.startswith(hub) else name: value
            for name, value in header.items()
        }

    edit_header(folder / WEIGHTS, rename)
    return folder


def summary(path: Path) -> dict[str, Any]:
    """Every key of a GGUF but the name and what only we write, and a digest of every tensor's name,
    type, axes and bytes."""
    reader = gguf.GGUFReader(path)
    left_out = ("GGUF.", "general.name", "qwen_pack.", "tokenizer.")
    keys = {
        name: field.contents()
        for name, field in sorted(reader.fields.items())
        if not name.startswith(left_out)
    }
    digest = hashlib.sha256()
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name):
        axes = [int(size) for size in tensor.shape]
        line = json.dumps([tensor.name, tensor.tensor_type.name, axes])
        # Sines and cosines are computed, and by every library a little otherwise.
        data = b"" if tensor.name == SINUSOIDS else tensor.data.tobytes()
        digest.update(line.encode() + hashlib.sha256(data).digest())
    return {"tensors": len(reader.tensors), "sha256": digest.hexdigest(), "keys": keys}
