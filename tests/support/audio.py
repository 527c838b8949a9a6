"""Tiny checkpoints of Qwen3-ASR and Qwen2-Audio: a decoder and an audio encoder with random
weights."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from packager.shape import Shape
from packager.shape.audio import AudioTower
from tests.support.damage import WEIGHTS
from tests.support.make_checkpoint import tiny_shape, write_tiny

# The converter of llama.cpp maps the three convolutions only where there are four layers. Blocks of 32 do not divide 72: what a type of 8 bits leaves in half precision.
TOWER = AudioTower(hidden=64, intermediate=72, depth=4, heads=2, channels=24, out=64)
SECONDS = 10
SHAPE: Shape = replace(tiny_shape("qwen3", layers=2, tied=True), model_type="qwen3_asr").hearing(
    TOWER, SECONDS
)

ASKED = AudioTower(
    hidden=64, intermediate=72, depth=3, heads=2, channels=0, out=64, generation="qwen2_audio"
)
"""The encoder of Qwen2-Audio, whose sounds are asked about."""
ASKED_SHAPE: Shape = replace(
    tiny_shape("qwen2", layers=2, tied=False), model_type="qwen2_audio"
).hearing(ASKED, SECONDS)
SHAPES = {"qwen3_asr": SHAPE, "qwen2_audio": ASKED_SHAPE}


def write_hearing(folder: Path, model_type: str = "qwen3_asr", **writing: Any) -> Path:
    """A checkpoint with an audio encoder, under the hub's names."""
    return write_tiny(folder, shape=SHAPES[model_type], **writing)


def as_published(checkpoint: Path, folder: Path) -> Path:
    """A copy with vocab.json and merges.txt in place of tokenizer.json, as the published Qwen3-ASR
    has them."""
    shutil.copytree(checkpoint, folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_bytes("\r\n".join(["#version: 0.2", *lines, ""]).encode())
    return folder


def louder(folder: Path) -> Path:
    """The same checkpoint with an encoder whose every part tells: with the weights of a new model
    what is heard is hardly more than the place of a token."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    draw = np.random.default_rng(5)
    weights = load_file(folder / WEIGHTS)
    for name, weight in weights.items():
        if not re.search(r"audio_tower|multi_modal", name) or re.search(r"norm|\.ln_post\.", name):
            continue
        # Each convolution leaves less than it got.
        gain = 2.0 if ".conv" in name else 1.2
        scale = gain / math.sqrt(weight[0].size) if weight.ndim > 1 else 0.1
        weights[name] = (draw.standard_normal(weight.shape) * scale).astype(weight.dtype)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def claiming(seconds: int) -> bytes:
    """A second of silence as FLAC whose header says so many seconds more."""
    import numpy as np
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.zeros(4_000, np.float32), 4_000, format="FLAC")
    data = bytearray(out.getvalue())
    # The number of samples: 36 bits that end at byte 26 of a FLAC (RFC 9639, 8.2).
    assert int.from_bytes(data[21:26], "big") & (1 << 36) - 1 == 4_000
    claimed = int.from_bytes(data[21:26], "big") + 4_000 * seconds
    data[21:26] = claimed.to_bytes(5, "big")
    return bytes(data)
