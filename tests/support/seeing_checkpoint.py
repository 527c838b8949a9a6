"""The tiny models of tests.support.tiny_vision as folders that a build takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.tiny_vision import TEMPLATE, Tiny


def write_checkpoint(model: Tiny, folder: Path) -> Path:
    """The model in 16 bits as transformers saves it, with what a tokenizer and a processor say; its
    own weights are rounded to what is stored."""
    import torch

    own = model.model
    with torch.no_grad():
        for weight in own.parameters():
            weight.copy_(weight.bfloat16().float())
    own.bfloat16().save_pretrained(folder)
    own.float()
    for path in (model.artifact.parent / "text").iterdir():
        if path.name.startswith(("tokenizer", "vocab", "merges", "generation")):
            shutil.copy(path, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "LICENSE").write_text("CC0")
    vision = own.config.vision_config
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "patch_size": vision.patch_size,
                "merge_size": 2,
                "temporal_patch_size": 2,
                "image_mean": list(model.mean),
                "image_std": list(model.std),
                "size": {"shortest_edge": 4096, "longest_edge": 16777216},
            }
        )
    )
    return folder
