"""The draft module for multi-token prediction of a checkpoint. Whoever builds without it never
comes here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packager.checkpoint.header import TensorInfo
from packager.checkpoint.naming import draft_name
from packager.checkpoint.vision import refuse_damage
from packager.errors import bad_input
from packager.shape import Shape, heads

_WITHOUT = "Leave --speculate mtp out, or take the model's own repository."


def read(path: Path, shape: Shape, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The module's tensors by their official names (packager.shape.heads), among those that are
    `stored`; `path` is that of config.json.

    Raises PackError (exit code 6) with the reason where there is none, not all of it, or a part in
    another shape or quantized.
    """
    if not heads.may_have(shape):
        raise bad_input(
            f"Checkpoints of model_type {shape.model_type!r} have no heads for multi-token "
            "prediction.",
            "Name one of Qwen3-Next or Qwen3.5, or draft with another model.",
        )
    kept: dict[str, TensorInfo] = {}
    for tensor in stored.values():
        name = draft_name(tensor.name)
        if name is None:
            continue
        if name in kept:
            raise bad_input(
                f"{tensor.file.name} holds {kept[name].name!r} and {tensor.name!r}, which are the "
                "same tensor.",
                f"Keep the one that is meant; {path} describes one network.",
            )
        kept[name] = tensor
    if not kept:
        raise bad_input(
            f"{path.parent} has no heads for multi-token prediction: no tensor's name begins with "
            f"{heads.PREFIX!r}. Training often leaves them out.",
            _WITHOUT,
        )
    fused = any(".mlp.experts.gate_up_proj" in name for name in kept)
    expected = {
        spec.name: spec.shape for spec in heads.tensors(shape, "fused" if fused else "each")
    }
    refuse_damage(path, expected, kept, "draft module", _WITHOUT)
    return kept
