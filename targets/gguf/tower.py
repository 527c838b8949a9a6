"""The tensors of a projector file (mmproj): what llama.cpp calls those of a vision tower, how they
are cut and in which types they are kept; no engine at hand. Those of an audio encoder are in
targets.gguf.audio.

Source: conversion/qwenvl.py, qwen3vl.py and base.py of llama.cpp, whose names and types these are
to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod

from packager.shape.audio import AudioTower
from packager.shape.tower import CHANNELS, FRAMES, PREFIX, Tower
from targets.gguf import audio
from targets.gguf.tensors import ALIGNMENT, OutTensor, Part, padded

TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What a projector is kept in."""

_BLOCK, _BLOCK_BYTES = 32, 34
_ITEM = {"F32": 4, "F16": 2, "BF16": 2}
_LAYER = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_DEEPSTACK = re.compile(r"deepstack_merger_list\.(\d+)\.(.+)\.(weight|bias)")
_OUTER = {
    "patch_embed.proj.bias": "v.patch_embd.bias",
    "pos_embed.weight": "v.position_embd.weight",
}
_MERGER = {
    "ln_q": "v.post_ln",
    "norm": "v.post_ln",
    "mlp.0": "mm.0",
    "mlp.2": "mm.2",
    "linear_fc1": "mm.0",
    "linear_fc2": "mm.2",
}
_BLOCKS = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_STACKED = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def tensors(tower: Tower | AudioTower) -> Iterator[OutTensor]:
    """Every tensor of the file, patches first, then layer by layer, then the mergers."""
    if isinstance(tower, AudioTower):
        yield from audio.tensors(tower)
        return
    for name, shape in tower.tensors():
        yield from _converted(tower, name, shape)


def _converted(tower: Tower, name: str, shape: tuple[int, ...]) -> Iterator[OutTensor]:
    rest = name.removeprefix(PREFIX)
    if rest == "patch_embed.proj.weight":
        yield from _patches(name, shape)
    elif (match := _LAYER.fullmatch(rest)) is not None:
        layer, part, end = match.groups()
        if part == "attn.qkv" and tower.generation != "qwen3_vl":
            yield from _thirds(f"v.blk.{layer}.attn_", name, shape, end)
        else:
            yield _as_it_is(f"v.blk.{layer}.{_BLOCKS[part]}.{end}", name, shape)
    elif (match := _DEEPSTACK.fullmatch(rest)) is not None:
        place, part, end = match.groups()
        # llama.cpp counts them by the layer of the tower that they stand behind.
        layer = str(tower.deepstack[int(place)])
        yield _as_it_is(f"v.deepstack.{layer}.{_STACKED[part]}.{end}", name, shape)
    elif rest in _OUTER:
        yield _as_it_is(_OUTER[rest], name, shape)
    else:
        part, _, end = rest.removeprefix("merger.").rpartition(".")
        yield _as_it_is(f"{_MERGER[part]}.{end}", name, shape)


def _as_it_is(new: str, name: str, shape: tuple[int, ...]) -> OutTensor:
    return OutTensor(new, shape, (Part(name, 0, prod(shape[:-1])),), f32=len(shape) == 1)


def _patches(name: str, shape: tuple[int, ...]) -> Iterator[OutTensor]:
    """The convolution over two pictures as two, one for each: clip.cpp adds what they give."""
    hidden, channels, frames, rows, columns = shape
    assert (channels, frames) == (CHANNELS, FRAMES)
    for frame, end in enumerate(("weight", "weight.1")):
        parts = tuple(
            Part(name, (plane * FRAMES + frame) * rows, rows) for plane in range(hidden * channels)
        )
        yield OutTensor(f"v.patch_embd.{end}", (hidden, channels, rows, columns), parts)


def _thirds(head: str, name: str, shape: tuple[int, ...], end: str) -> Iterator[OutTensor]:
    """Queries, keys and values, one after the other in the checkpoint."""
    width = shape[0] // 3
    for place, letter in enumerate("qkv"):
        new = f"{head}{letter}.{end}"
        if len(shape) == 1:
            yield OutTensor(new, (width,), (Part(name, place, 1),), f32=True)
        else:
            yield OutTensor(new, (width, *shape[1:]), (Part(name, place * width, width),))


def type_of(tensor: OutTensor, kind: str) -> str:
    """The ggml type of a tensor in a file of `kind`, one of TYPES, as llama.cpp's converter has it:
    vectors and positions in float32, the convolution too unless all is in half precision, and in
    half precision what 32 does not divide into blocks."""
    if tensor.f32 or tensor.name == "v.position_embd.weight":
        return "F32"
    if tensor.name.startswith("v.patch_embd.weight"):
        return "F16" if kind == "F16" else "F32"
    if (fixed := audio.fixed_type(tensor.name)) is not None:
        return fixed
    return "F16" if kind == "Q8_0" and tensor.columns % _BLOCK else kind


def types(planned: list[OutTensor], kind: str) -> dict[str, str]:
    """The type of every tensor by its name."""
    return {tensor.name: type_of(tensor, kind) for tensor in planned}


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row, as targets.gguf.kernels.row_bytes has them."""
    return _ITEM[kind] * columns if kind in _ITEM else columns // _BLOCK * _BLOCK_BYTES


@lru_cache(maxsize=64)
def bytes_by_type(tower: Tower | AudioTower, kind: str) -> Mapping[str, int]:
    """Bytes in the data section by ggml type, padding counted. Cached: `fit` asks for every variant
    many times."""
    found: dict[str, int] = {}
    for tensor in tensors(tower):
        own = type_of(tensor, kind)
        size = padded(tensor.rows * row_bytes(own, tensor.columns))
        found[own] = found.get(own, 0) + size
    return found


@lru_cache(maxsize=64)
def table_bytes(tower: Tower | AudioTower) -> int:
    """Bytes of the table of tensors in the header: name, axes, type and offset of each."""
    lines = (8 + len(tensor.name) + 4 + 8 * len(tensor.shape) + 4 + 8 for tensor in tensors(tower))
    return sum(lines)


def file_bytes(tower: Tower | AudioTower, kind: str, room: int) -> int:
    """Bytes of the file, its keys in `room`."""
    head = -(-(room + table_bytes(tower) + _FIXED) // ALIGNMENT) * ALIGNMENT
    return head + sum(bytes_by_type(tower, kind).values())


_FIXED = 24 + 2 * (8 + 4 + 4) + len("general.quantization_version" + "general.file_type")
"""Magic number, version, how many tensors and keys there are, and the two keys that follow the
padding."""
