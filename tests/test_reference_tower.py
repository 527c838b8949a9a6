"""The reference's vision tower beside transformers, for every family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.reference.tower import VisionTower
from tests.support.tiny_omni import FAMILY as OMNI
from tests.support.tiny_omni import tiny_omni
from tests.support.tiny_vision import FAMILIES, Tiny, tiny

pytest.importorskip("transformers", reason="the second witness")
pytest.importorskip("torch", reason="the second witness")


@dataclass(frozen=True)
class Widths:
    generation: str
    hidden: int
    depth: int
    heads: int
    patch: int
    positions: int
    deepstack: tuple[int, ...]
    full_attention: tuple[int, ...]


def reference_of(model: Tiny) -> VisionTower:
    """The tower of a tiny model, its widths read from transformers' configuration."""
    config = model.model.config.vision_config
    weights = {name: values.numpy() for name, values in model.tower.state_dict().items()}
    three = model.family.startswith("qwen3")
    widths = Widths(
        "qwen3_vl" if three else model.family,
        getattr(config, "embed_dim", None) or config.hidden_size,
        config.depth,
        config.num_heads,
        config.patch_size,
        config.num_position_embeddings if three else 0,
        tuple(config.deepstack_visual_indexes) if model.family == "qwen3_vl" else (),
        tuple(getattr(config, "fullatt_block_indexes", ())),
    )
    return VisionTower(widths, weights.__getitem__, model.mean, model.std)


@pytest.mark.parametrize("family", [*FAMILIES, OMNI])
def test_a_picture_becomes_what_transformers_makes_of_it(family: str, tmp_path: Path) -> None:
    """Wide, tall, and larger than a window of Qwen2.5-VL in both directions."""
    model = tiny_omni(tmp_path) if family == OMNI else tiny(family, tmp_path)
    tower = reference_of(model)
    draw = np.random.default_rng(1)
    for rows, columns in ((3, 7), (9, 6)):
        pixels = draw.integers(
            0, 256, (rows * model.factor, columns * model.factor, 3), dtype=np.uint8
        )
        ours: Any = tower.embed(pixels)
        theirs = model.embeddings(pixels)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 2e-4 * np.abs(theirs).max()
    with pytest.raises(PackError, match="is not whole tokens") as caught:
        tower.embed(pixels[:-1])
    assert caught.value.exit_code == ExitCode.INPUT
