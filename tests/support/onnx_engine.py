"""Builds of tiny checkpoints by ONNX Runtime's model builder, in child processes."""

from __future__ import annotations

from pathlib import Path

from targets.onnxruntime import OnnxRuntime
from tests.support.child_jobs import finish
from tests.support.make_checkpoint import tiny_shape

RUNTIME = OnnxRuntime()
CPU = [recipe.weights for recipe in RUNTIME.recipes() if recipe.provider == "cpu"]
GPU = [recipe.weights for recipe in RUNTIME.recipes() if recipe.provider != "cpu"]
# 64 columns of the output projection are half a block of 128: the recipe with those blocks pads
# them.
QWEN2 = tiny_shape(
    "qwen2", hidden=128, heads=4, kv_heads=2, intermediate=192, vocab=4096, tied=True
)
QWEN3 = tiny_shape(
    "qwen3", hidden=128, heads=4, kv_heads=2, head_dim=64, intermediate=256, vocab=4096, tied=False
)
CONTEXT = 96


def build_all(home: Path, checkpoint: str, recipes: list[str], out: str) -> Path:
    arguments = {
        "checkpoint": str(home / checkpoint),
        "recipes": recipes,
        "context": CONTEXT,
        "out": str(home / out),
    }
    finish("tests.support.onnx_jobs:build_all", home / f"{out}.log", **arguments)
    return home / out
