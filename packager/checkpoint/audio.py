"""The audio encoder of a checkpoint: what config.json describes, and the tensors that are stored of
it. Whoever builds text alone never comes here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.checkpoint.folder import PREPROCESSORS, read_json
from packager.checkpoint.header import TensorInfo
from packager.checkpoint.naming import sound_name
from packager.checkpoint.vision import matched
from packager.errors import PackError, bad_input
from packager.shape import Shape
from packager.shape.audio import FRAME, HOP, MELS, RATE, AudioTower, audio_tower_of
from packager.shape.fields import Fields

_FEATURES = {"feature_size": MELS, "sampling_rate": RATE, "hop_length": HOP, "n_fft": FRAME}
"""What the engine computes, whatever preprocessor_config.json says."""


@dataclass(frozen=True, slots=True)
class Audio:
    """An encoder that is whole. `tensors` by the names of `AudioTower.tensors`."""

    tower: AudioTower
    tensors: Mapping[str, TensorInfo]


def read(
    files: Mapping[str, Path],
    config: Mapping[str, Any],
    shape: Shape,
    stored: Mapping[str, TensorInfo],
) -> Audio:
    """The audio encoder among the `stored` tensors of a checkpoint with these files.

    Raises PackError (exit code 6) with the reason: config.json describes none, the weights have
    none, or not all of it, or a part in another shape or quantized; features are computed another
    way than the engine does.
    """
    path = files["config.json"]
    tower = audio_tower_of(config, shape, str(path))
    tensors = matched(path, stored, dict(tower.tensors()), sound_name, "audio encoder")
    windows = {} if tower.window is None else {"chunk_length": tower.window}
    _refuse_other_features(files, _FEATURES | windows)
    return Audio(tower, tensors)


def _refuse_other_features(files: Mapping[str, Path], computed: Mapping[str, int]) -> None:
    for name in PREPROCESSORS:
        if name not in files:
            continue
        table = read_json(files[name])
        inner = table.get("feature_extractor")
        settings = {**table, **(inner if isinstance(inner, dict) else {})}
        fields = Fields(settings, str(files[name]))
        for key, only in computed.items():
            if (value := fields.count(key, only)) != only:
                raise fields.wrong(key, f"is {value!r}, and only {only!r} is computed")


def wrong_encoder(folder: Path, repo_id: str, planned: AudioTower, has: AudioTower) -> PackError:
    """The refusal (exit code 6) of a checkpoint whose audio encoder is not the one that was planned
    for."""
    return bad_input(
        f"{folder} is not {repo_id}: its audio encoder has {has.parameters():,} weights in "
        f"{has.depth} layers instead of {planned.parameters():,} in {planned.depth}.",
        "Name the variant that it was made from with --model.",
    )
