"""preprocessor_config.json of an artifact: how the engine normalizes pictures, and between how many
pixels it keeps them; and the sizes that follow from it.

VLMPipeline has no setting for the limits at run time: they are in this file alone. The arithmetic of
sizes is that of its smart_resize (openvino.genai, src/cpp/src/visual_language/qwen2vl).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import PREPROCESSORS, read_json
from packager.checkpoint.vision import Vision
from packager.errors import bad_input, usage
from packager.files import write_json
from packager.json_values import JsonObject, at
from packager.shape.fields import Fields
from packager.shape.tower import FRAMES, MERGE, Tower
from targets.openvino.seeing import PREPROCESSOR

_LONGEST = 200
"""Times that one side of a picture may be longer than the other."""
_TOKENS = {"qwen2_vl": (4, 16_384), "qwen2_5_vl": (4, 16_384), "qwen3_vl": (64, 16_384)}
"""Tokens of a picture at least and at most where a checkpoint says nothing: the published
processors' own, in pixels 3,136 and 12,845,056, of Qwen3-VL 65,536 and 16,777,216."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Pixels of a picture at least and at most, and of a side of an image token."""

    least: int
    most: int
    token: int

    def but(self, least: int | None, most: int | None) -> Limits:
        """The same with so many tokens at least or at most; the most counts."""
        area = self.token**2
        upper = self.most if most is None else most * area
        lower = self.least if least is None else least * area
        return Limits(min(lower, upper), upper, self.token)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that the engine gives a picture: whole tokens, within the limits.
        Raises PackError (usage) for one that is 200 times longer than wide."""
        if max(width, height) // max(1, min(width, height)) > _LONGEST:
            raise usage(
                f"A picture of {width} x {height} pixels is more than {_LONGEST} times as long on "
                "one side.",
                "Cut it.",
            )
        side = self.token
        # Half a token more is one more, as C's round has it.
        columns, rows = (math.floor(each / side + 0.5) * side for each in (width, height))
        if columns * rows > self.most:
            shrink = math.sqrt(width * height / self.most)
            columns, rows = (math.floor(each / shrink / side) * side for each in (width, height))
        elif columns * rows < self.least:
            grow = math.sqrt(self.least / (width * height))
            columns, rows = (math.ceil(each * grow / side) * side for each in (width, height))
        if not columns or not rows:
            raise usage(
                f"A picture of {width} x {height} pixels is too narrow for {self.most // side**2} "
                "tokens.",
                "Cut it, or build with a larger --max-image-tokens.",
            )
        return columns, rows

    def tokens(self, width: int, height: int) -> int:
        """Tokens that a picture of so many pixels takes."""
        columns, rows = self.resized(width, height)
        return columns * rows // self.token**2


def write(opened: Checkpoint, vision: Vision, out: Path, most: int | None) -> None:
    """Write the file into the folder `out`; a picture takes `most` tokens at most."""
    tower = vision.tower
    limits = _stated(opened.files, tower).but(None, most)
    write_json(
        out / PREPROCESSOR,
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


def read(artifact: Path) -> tuple[Limits, JsonObject]:
    """The limits of an artifact, and the whole file. Raises PackError (bad input)."""
    path = artifact / PREPROCESSOR
    if not path.is_file():
        raise bad_input(f"{artifact} holds no {PREPROCESSOR}.", "Build the package again.")
    table = read_json(path)
    try:
        least, most = at(table, "min_pixels", int), at(table, "max_pixels", int)
        token = at(table, "patch_size", int) * at(table, "merge_size", int)
    except TypeError as error:
        raise bad_input(f"{path} is not as it was built: {error}.", "Build it again.") from None
    if not 0 < token or not 0 < least <= most:
        raise bad_input(f"{path} has limits that no picture meets.", "Build it again.")
    return Limits(least, most, token), table


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
