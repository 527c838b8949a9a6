"""preprocessor_config.json as it is written into an artifact. VLMPipeline has no setting for the
limits of pixels at run time: they are in this file alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import PREPROCESSORS, read_json
from packager.checkpoint.vision import Vision
from packager.files import write_json
from packager.json_values import JsonObject
from packager.shape.fields import Fields
from packager.shape.tower import FRAMES, MERGE, Tower
from targets.openvino.pixels import FILE, Limits

_TOKENS = {"qwen2_vl": (4, 16_384), "qwen2_5_vl": (4, 16_384), "qwen3_vl": (64, 16_384)}
"""Tokens of a picture at least and at most where a checkpoint says nothing: the published
processors' own, in pixels 3,136 and 12,845,056, of Qwen3-VL 65,536 and 16,777,216."""


def write(opened: Checkpoint, vision: Vision, out: Path, most: int | None) -> None:
    """Write the file into the folder `out`; a picture takes `most` tokens at most."""
    tower = vision.tower
    limits = _stated(opened.files, tower).but(None, most)
    write_json(
        out / FILE,
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": tower.patch,
            "merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "image_mean": list(vision.mean),
            "image_std": list(vision.deviation),
            "min_pixels": limits.least,
            "max_pixels": limits.most,
        },
    )


def with_limits(table: JsonObject, limits: Limits) -> str:
    """The text of the file with other limits."""
    changed = {**table, "min_pixels": limits.least, "max_pixels": limits.most}
    return json.dumps(changed, indent=2) + "\n"


def _stated(files: Mapping[str, Path], tower: Tower) -> Limits:
    """What the checkpoint says: min_pixels and max_pixels, or the edges of `size`, which are pixels
    as well; the later of two files counts."""
    token = tower.pixels_per_token
    least, most = (count * token**2 for count in _TOKENS[tower.generation])
    for name in PREPROCESSORS:
        if name not in files:
            continue
        table = read_json(files[name])
        inner = table.get("image_processor")
        fields = Fields({**table, **(inner if isinstance(inner, dict) else {})}, str(files[name]))
        edges = fields.table("size") if "size" in fields else fields
        least = fields.count("min_pixels", edges.count("shortest_edge", least))
        most = fields.count("max_pixels", edges.count("longest_edge", most))
    return Limits(min(least, most), max(most, token**2), token)
