"""The tensors of a projector file (mmproj) that hold an audio encoder: what llama.cpp calls them
and in which types they are kept; no engine at hand.

Source: conversion/qwen3vl.py, qwenvl.py, ultravox.py and base.py of llama.cpp, whose names and
types these are to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod

from packager.shape.audio import POSITIONS, PREFIX, AudioTower
from packager.shape.whisper import PROJECTOR
from targets.gguf.tensors import OutTensor, Part

SINUSOIDS = f"{PREFIX}embed_positions.weight"
"""The source of the positions. Qwen2-Audio's checkpoints store them, those of Qwen3-ASR do not:
they are computed."""

_POSITIONS = "a.position_embd.weight"
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
_OUTER = {
    "conv2d1": "a.conv2d.1",
    "conv2d2": "a.conv2d.2",
    "conv2d3": "a.conv2d.3",
    "conv_out": "a.conv_out",
    "ln_post": "a.post_ln",
    "proj1": "mm.a.mlp.1",
    "proj2": "mm.a.mlp.2",
    "conv1": "a.conv1d.1",
    "conv2": "a.conv1d.2",
    "embed_positions": "a.position_embd",
    "layer_norm": "a.post_ln",
    PROJECTOR: "mm.a.fc",
}
_LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "self_attn_layer_norm": "ln1",
    "fc1": "ffn_up",
    "fc2": "ffn_down",
    "final_layer_norm": "ln2",
}


def tensors(tower: AudioTower) -> Iterator[OutTensor]:
    """Every tensor of the file: positions, convolutions, layer by layer, then the projector."""
    if tower.window is None:
        shape = (POSITIONS, tower.hidden)
        yield OutTensor(_POSITIONS, shape, (Part(SINUSOIDS, 0, POSITIONS),), f32=True)
    for name, size in tower.tensors():
        yield _converted(name, size)


def _converted(name: str, shape: tuple[int, ...]) -> OutTensor:
    rest = name.removeprefix(PREFIX)
    if (match := _LAYER.fullmatch(rest)) is not None:
        layer, part, end = match.groups()
        new = f"a.blk.{layer}.{_LAYERS[part]}.{end}"
    else:
        part, _, end = rest.rpartition(".")
        new = f"{_OUTER[part]}.{end}"
    if new.startswith("a.conv2d.") and end == "bias":
        # The engine adds it to planes of that many channels; each is a row of one number.
        return OutTensor(new, (*shape, 1, 1), (Part(name, 0, shape[0]),), f32=True)
    if new.startswith("a.conv1d.") and end == "bias":
        return OutTensor(new, (*shape, 1), (Part(name, 0, shape[0]),), f32=True)
    always = len(shape) == 1 or new == _POSITIONS
    return OutTensor(new, shape, (Part(name, 0, prod(shape[:-1])),), f32=always)


def fixed_type(name: str) -> str | None:
    """The type that a tensor has in a file of any kind; None where the kind decides."""
    convolution = name.startswith("a.conv") and name.endswith(".weight")
    return "F16" if convolution else None
