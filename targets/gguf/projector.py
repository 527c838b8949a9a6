"""The projector file (mmproj): a vision tower or an audio encoder in GGUF, in the same one pass as
the text model.

Its keys equal those of llama.cpp's own converter (docs/vision.md), but for one: the epsilon of the
norms is the one that transformers computes with, where the converter takes the text decoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from packager.checkpoint import Checkpoint, TensorInfo
from packager.checkpoint.audio import Audio
from packager.checkpoint.vision import Vision
from packager.cores import cores
from packager.runtime import Report
from packager.shape.audio import MELS, POSITIONS
from packager.shape.tower import MERGE, WINDOWED, Tower
from packager.units import human_bytes
from targets.gguf import audio, metadata, model_card, padding, tower
from targets.gguf.kernels import kernels, row_bytes
from targets.gguf.shards import shards
from targets.gguf.tensors import OutTensor, place
from targets.gguf.writer import write_gguf

_EPSILON = 1e-6
_IMAGE_SIZE = 560
"""What llama.cpp's converter writes for the towers without learned positions; clip.cpp reads any
size."""
_AUDIO_EPSILON = 1e-5
_HEARING = {
    "qwen3_asr": str(gguf.VisionProjectorType.QWEN3A),
    "qwen2_audio": str(gguf.VisionProjectorType.QWEN2A),
}
_PROJECTORS = {
    "qwen2_vl": gguf.VisionProjectorType.QWEN2VL,
    "qwen2_5_vl": gguf.VisionProjectorType.QWEN25VL,
    # For pictures llama.cpp takes it as the one above.
    "qwen2_5_omni": gguf.VisionProjectorType.QWEN25O,
    "qwen3_vl": gguf.VisionProjectorType.QWEN3VL,
}


# Any: facts that go to the manifest, whose type checks them.
def convert_projector(
    checkpoint: Path | Checkpoint,
    path: Path,
    kind: str,
    *,
    report: Report,
    threads: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the vision tower of a checkpoint (its folder, or opened) as GGUF, and return facts
    about it.

    `kind` is one of targets.gguf.tower.TYPES, `origin` as for the text model. The bytes are the
    same for any number of threads. Raises PackError (exit code 6) where the tower is not whole;
    nothing is left behind then.
    """
    source = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
    vision = source.vision()
    planned = list(tower.tensors(vision.tower))
    keys = collect(source, vision, planned, kind, origin)
    made = _written(path, planned, keys, vision.tensors, kind, threads, report)
    report.note(f"{path.name}: {human_bytes(made['artifact_bytes'])}, the vision tower in {kind}")
    return {
        **made,
        "projector": str(_PROJECTORS[vision.tower.generation]),
        "parameters": vision.tower.parameters(),
        "patch_size": vision.tower.patch,
        "pixels_per_token": vision.tower.pixels_per_token,
        "deepstack": list(vision.tower.deepstack),
    }


# Any: facts that go to the manifest, whose type checks them.
def convert_audio(
    checkpoint: Path | Checkpoint,
    path: Path,
    kind: str,
    *,
    report: Report,
    threads: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The same for the audio encoder of a checkpoint."""
    source = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
    hearing = source.audio()
    planned = list(tower.tensors(hearing.tower))
    keys = collect(source, hearing, planned, kind, origin)
    sources = {audio.SINUSOIDS: _sinusoids(hearing.tower.hidden), **hearing.tensors}
    made = _written(path, planned, keys, sources, kind, threads, report)
    report.note(f"{path.name}: {human_bytes(made['artifact_bytes'])}, the audio encoder in {kind}")
    projector = _HEARING[hearing.tower.generation]
    return {**made, "projector": projector, "parameters": hearing.tower.parameters()}


# Any: facts that go to the manifest, whose type checks them.
def _written(
    path: Path,
    planned: list[OutTensor],
    keys: metadata.KeyValues,
    sources: Mapping[str, TensorInfo],
    kind: str,
    threads: int | None,
    report: Report,
) -> dict[str, Any]:
    """Write the file; what is known of any tower's."""
    typed = list(place(planned, tower.types(planned, kind), row_bytes))
    files = shards(path, keys, typed, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(files, sources, kernels(), threads or cores().at_once, report)
    counts: dict[str, int] = {}
    for entry in typed:
        counts[entry.type] = counts.get(entry.type, 0) + 1
    return {
        "file": path.name,
        "type": kind,
        "artifact_bytes": files[0].path.stat().st_size,
        "tensors": len(typed),
        "types": counts,
    }


def collect(
    source: Checkpoint,
    encoder: Vision | Audio,
    planned: list[OutTensor],
    kind: str,
    origin: Mapping[str, Any] | None = None,
) -> metadata.KeyValues:
    """Every key of the file."""
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.MMPROJ])
    writer.add_type(gguf.GGUFType.MMPROJ)
    metadata.describe_origin(
        writer, source, planned, origin or {}, None, model_card.read(source.folder)
    )
    if isinstance(encoder, Vision):
        _describe(writer, encoder)
    else:
        _describe_audio(writer, encoder)
    writer.add_string(padding.KEY, padding.text(writer.kv_data[0]))
    return metadata.close(writer, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}")


def _describe(writer: gguf.GGUFWriter, vision: Vision) -> None:
    found = vision.tower
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(_PROJECTORS[found.generation])
    writer.add_vision_projection_dim(found.out)
    writer.add_vision_image_size(_image_size(found))
    writer.add_vision_patch_size(found.patch)
    writer.add_vision_embedding_length(found.hidden)
    # Of Qwen2-VL the converter writes the width of the decoder here; clip.cpp does not read it.
    first = found.generation == "qwen2_vl"
    writer.add_vision_feed_forward_length(found.out if first else found.intermediate)
    writer.add_vision_block_count(found.depth)
    writer.add_vision_head_count(found.heads)
    writer.add_vision_image_mean(vision.mean)
    writer.add_vision_image_std(vision.deviation)
    writer.add_vision_attention_layernorm_eps(_EPSILON)
    if found.generation in WINDOWED:
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(found.full_attention[0] + 1)
    elif found.generation == "qwen3_vl":
        writer.add_vision_use_gelu(True)
        writer.add_vision_spatial_merge_size(MERGE)
        layers = range(found.depth)
        writer.add_vision_is_deepstack_layers([layer in found.deepstack for layer in layers])


def _describe_audio(writer: gguf.GGUFWriter, encoder: Audio) -> None:
    found = encoder.tower
    writer.add_clip_has_audio_encoder(True)
    # The converter names it as that of the whole file where it knows no other one.
    if found.generation == "qwen2_audio":
        writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN2A)
    else:
        writer.add_clip_audio_projector_type(gguf.VisionProjectorType.QWEN3A)
    writer.add_audio_projection_dim(found.out)
    writer.add_audio_embedding_length(found.hidden)
    writer.add_audio_feed_forward_length(found.intermediate)
    writer.add_audio_block_count(found.depth)
    writer.add_audio_head_count(found.heads)
    writer.add_audio_num_mel_bins(MELS)
    writer.add_audio_attention_layernorm_eps(_AUDIO_EPSILON)


@dataclass(frozen=True, slots=True)
class Sinusoids:
    """Sines and cosines of positions, half and half, as the encoder computes them: the rows of a
    tensor (packager.checkpoint.header.Rows)."""

    width: int

    def rows(self, first: int, end: int) -> npt.NDArray[np.float32]:
        """(rows, width)."""
        half = self.width // 2
        step = np.log(10_000.0) / (half - 1)
        scales = np.exp(-step * np.arange(half)).astype(np.float32)
        angles = np.arange(first, end, dtype=np.float32)[:, None] * scales
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _sinusoids(width: int) -> TensorInfo:
    size = 4 * POSITIONS * width
    made = Sinusoids(width)
    return TensorInfo(audio.SINUSOIDS, "F32", (POSITIONS, width), Path("computed"), 0, size, made)


def _image_size(found: Tower) -> int:
    return isqrt(found.positions) * found.patch if found.positions else _IMAGE_SIZE
