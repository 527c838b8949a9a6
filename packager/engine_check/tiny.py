"""The checkpoints that engines are tried with: made on the spot, the same on every machine, with
logits that say something."""

from __future__ import annotations

from pathlib import Path

from packager.runtime import Report
from packager.shape import Shape

PROMPT_TOKENS, NEW_TOKENS, CONTEXT = 300, 6, 320
"""A prompt longer than the batches that engines cut prompts into, and some tokens decoded behind
it."""

_VOCABULARY, _LOUDER = 1024, 6

WIDE = Shape("qwen3", 256, 2, 4, 2, 64, 512, _VOCABULARY, False, False, True, 2048)
"""Rows of 256 and 512 weights, which every block type of every engine divides."""
NARROW = Shape("qwen3", 64, 2, 2, 1, 32, 128, _VOCABULARY, True, False, True, 2048)
"""Matrices smaller than the tiles of some processors, and heads of 32."""


def write(report: Report, folder: Path, shape: Shape) -> Path:
    """A checkpoint of that shape in a new folder, its weights so large that attention and logits
    are far from even."""
    # Late: numpy and safetensors, for the child that computes.
    from safetensors.numpy import load_file, save_file

    from packager.checkpoint.control_tokens import QWEN3
    from packager.sources.dummy import write_checkpoint

    folder.mkdir(parents=True)
    write_checkpoint(report, folder, repo_id="qwen-pack/engine-check", shape=shape, control=QWEN3)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    louder = {
        name: value * value.dtype.type(_LOUDER) if value.ndim > 1 else value
        for name, value in tensors.items()
    }
    save_file(louder, file, {"format": "pt"})
    return folder


def prompt() -> list[int]:
    """Ids of ordinary tokens."""
    # Late: as above.
    import numpy as np

    return [int(token) for token in np.random.default_rng(5).integers(0, 700, PROMPT_TOKENS)]
