"""Tiny checkpoints of every architecture that the GGUF converter knows, and ways to look at what it
wrote."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from packager.shape import Experts, Hybrid, Shape
from targets.gguf import library
from targets.gguf.convert import convert
from tests.support.make_checkpoint import tiny_shape, write_tiny

_EXPERTS = Experts(count=4, active=2, intermediate=256, norm_topk=True)
_UNNORMALISED = Experts(count=4, active=2, intermediate=256, shared_intermediate=256)
_SHARED = Experts(count=4, active=2, intermediate=256, shared_intermediate=256, norm_topk=True)
_HYBRID = Hybrid(
    interval=2, key_heads=2, value_heads=4, key_head_dim=64, value_head_dim=64, conv_kernel=4
)


def _shape(
    model_type: str, *, tied: bool = False, bias: bool = False, norm: bool = False, **more: Any
) -> Shape:
    intermediate = 0 if more.get("experts") else 512
    return Shape(model_type, 256, 2, 4, 2, 64, intermediate, 1024, tied, bias, norm, 2048, **more)


FIRST = Shape("qwen", 256, 2, 4, 4, 64, 512, 1024, False, True, False, 2048, 10_000.0)

SHAPES = {
    "qwen2": tiny_shape("qwen2", hidden=256, heads=4, kv_heads=2, intermediate=512, tied=False),
    "qwen2-tied": tiny_shape("qwen2", hidden=256, heads=4, kv_heads=2, intermediate=512),
    "qwen3": tiny_shape("qwen3", hidden=256, heads=4, kv_heads=2, head_dim=128, intermediate=512),
    "qwen2_moe": _shape("qwen2_moe", bias=True, experts=_UNNORMALISED),
    "qwen3_moe": _shape("qwen3_moe", norm=True, experts=_EXPERTS),
    "qwen3_next": _shape("qwen3_next", norm=True, experts=_SHARED, hybrid=_HYBRID),
    "qwen3_5_text": _shape("qwen3_5_text", norm=True, hybrid=_HYBRID),
    "qwen3_5_moe_text": _shape("qwen3_5_moe_text", norm=True, experts=_SHARED, hybrid=_HYBRID),
}
"""Rows of 256 and 512 elements, which every block type divides."""

OTHERS = {
    "qwen": FIRST,
    "qwen2_vl": _shape("qwen2_vl", bias=True),
    "qwen3_vl": _shape("qwen3_vl", norm=True),
    "qwen3_vl_moe": _shape("qwen3_vl_moe", norm=True, experts=_EXPERTS),
    "qwen3_5": _shape("qwen3_5", norm=True, hybrid=_HYBRID),
    "qwen3_5_moe": _shape("qwen3_5_moe", norm=True, experts=_SHARED, hybrid=_HYBRID),
}
"""Checkpoints that transformers does not load as they are: with Python of their own, or with more
than a text decoder."""

AWKWARD = tiny_shape("qwen2", hidden=96, heads=2, kv_heads=1, intermediate=160)
"""Rows that only blocks of 32 divide: the K types fall back, as in the 0.5B models."""


def checkpoint(folder: Path, shape: Shape, **writing: Any) -> Path:
    """A checkpoint of that shape in `folder`."""
    return write_tiny(folder, shape=shape, **writing)


def build(folder: Path, out: Path, preset: str, **more: Any) -> Path:
    """The GGUF of a checkpoint."""
    convert(folder, out, preset, **more)
    return out


def library_quantized(source: Path, out: Path, preset: str) -> Path:
    """What llama.cpp's own quantizer makes of an unquantized GGUF."""
    lib = library.llama()
    params = lib.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[f"MOSTLY_{preset}"])
    params.nthread = 1
    with library.captured_log() as said:
        code = lib.llama_model_quantize(
            str(source).encode(), str(out).encode(), ctypes.byref(params)
        )
    assert code == 0, "".join(said)
    return out


def values(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of a GGUF as float32, outermost dimension first."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }


def keys(path: Path) -> dict[str, Any]:
    """Every key of a GGUF with its value."""
    return {
        name: field.contents()
        for name, field in gguf.GGUFReader(path).fields.items()
        if not name.startswith("GGUF.")
    }


def overwrite(folder: Path, tensor: str, element: int, raw: bytes) -> None:
    """Replace the bytes of one number of one tensor in model.safetensors."""
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        file.seek(8 + length + header[tensor]["data_offsets"][0] + element * len(raw))
        file.write(raw)
