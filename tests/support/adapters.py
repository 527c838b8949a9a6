"""Adapters by hand, and what they are merged into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.checkpoint.adapter import CONFIG, WEIGHTS, Adapter
from packager.checkpoint.composed import compose


def composed(folder: Path, base: Path, *adapters: Adapter) -> Checkpoint:
    compose(folder, base, adapters)
    return Checkpoint.open(folder)


def low_rank(folder: Path, parts: dict[str, tuple[int, int]], **config: Any) -> Path:
    """An adapter by hand: module -> rows and columns."""
    random = np.random.default_rng(len(parts))
    folder.mkdir(parents=True, exist_ok=True)
    rank = config.get("r", 2)
    tensors = {}
    for module, (rows, columns) in parts.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = random.normal(
            size=(rank, columns)
        ).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = random.normal(
            size=(rows, rank)
        ).astype(np.float32)
    save_file(tensors, folder / WEIGHTS)
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "bias": "none"} | config
    (folder / CONFIG).write_text(json.dumps(described))
    return folder


QUERY = "model.layers.0.self_attn.q_proj"


def changed_weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """What changes the tensors of an adapter's folder."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return damage
