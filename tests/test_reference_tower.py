"""The reference's vision tower, and its decoder behind a picture, beside transformers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.reference.seen import behind_picture
from packager.reference.tower import VisionTower
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent
from tests.support.tiny_omni import FAMILY as OMNI
from tests.support.tiny_omni import tiny_omni
from tests.support.tiny_vision import FAMILIES, Tiny, tiny

# Looked for and not imported: each worker of a run collects every file.
WITNESS = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("torch") is None,
    reason="needs transformers and torch, the second witness",
)
pytestmark = WITNESS


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


def trained() -> tuple[Tiny, Checkpoint]:
    """The trained model with DeepStack, as transformers opens it."""
    import transformers

    folder = REPOSITORY / "tests" / "models" / "tiny-qwen3-vl"
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder).float().eval()
    mean = (0.5,) * 3
    image = model.config.image_token_id
    return Tiny("qwen3_vl", model, folder, 32, image, mean, mean), Checkpoint.open(folder)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "qwen3_5"])
def test_a_text_behind_a_picture_is_expected_as_by_transformers(
    family: str, tmp_path: Path
) -> None:
    """Axes behind one another and interleaved, DeepStack, a part of a head, a recurrent state."""
    import torch

    if family == "qwen3_vl":
        model, checkpoint = trained()
    else:
        model = tiny(family, tmp_path)
        checkpoint = Checkpoint.open(tmp_path / "text")
    rows, columns, before, after = 3, 7, [5, 9, 300], [17, 400, 23, 8]
    draw = np.random.default_rng(2)
    pixels = draw.integers(0, 256, (rows * model.factor, columns * model.factor, 3), dtype=np.uint8)
    ids = torch.tensor([[*before, *[model.image_id] * rows * columns, *after]])
    values, grid = model.pixel_values(pixels)
    with torch.no_grad():
        theirs = model.model(
            input_ids=ids, pixel_values=values, image_grid_thw=grid, **model.kinds(ids)
        ).logits[0, -len(after) :]
    picture = reference_of(model).embed(pixels)
    said = behind_picture(checkpoint, before, picture, (rows, columns), after, Silent())
    ours, wanted = said.logits(0), theirs.numpy()
    assert np.abs(ours - wanted).max() < 1e-3 * np.abs(wanted).max()
