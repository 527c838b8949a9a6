"""How many tokens a picture takes, and to what size the engine brings it: the arithmetic of
smart_resize of openvino-genai (src/cpp/src/visual_language/qwen2vl)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from packager.errors import bad_input, usage
from packager.foreign import parse_json
from packager.json_values import JsonObject, JsonValue, WrongKind, as_object, at, list_at
from packager.limits import TOWER_WIDTH
from packager.shape.tower import CHANNELS, FRAMES, MERGE

FILE = "preprocessor_config.json"
"""Of an artifact: how pictures are normalized, and between how many pixels they are kept."""
_LARGEST = 1 << 20
_MOST_PIXELS = 1 << 40
"""Of a picture, as a limit. Published processors say 12 to 17 millions."""
_LONGEST = 200
"""Times that one side of a picture may be longer than the other."""
_FEWEST = 4
"""Tokens of the smallest picture where the most is less than what else would be the least."""


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
        return Limits(lower if lower <= upper else min(_FEWEST * area, upper), upper, self.token)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that the engine gives a picture: whole tokens, within the limits.
        Raises PackError (usage) for one that is too narrow."""
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


def read(artifact: Path) -> tuple[Limits, JsonObject]:
    """The limits of an artifact, and the whole file. Raises PackError (bad input)."""
    path = artifact / FILE
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise bad_input(f"{artifact} holds no {FILE}.", "Build the package again.")
    try:
        table = as_object(parse_json(path.read_bytes(), str(path), "Build it again."), FILE)
        least, most = at(table, "min_pixels", int), at(table, "max_pixels", int)
        patch = at(table, "patch_size", int)
        _refuse_others(table)
    except TypeError as error:
        raise bad_input(f"{path} is not as it was built: {error}.", "Build it again.") from None
    if not 0 < patch <= TOWER_WIDTH or not 0 < least <= most <= _MOST_PIXELS:
        raise bad_input(f"{path} has limits that no picture meets.", "Build it again.")
    return Limits(least, most, patch * MERGE), table


def _refuse_others(table: JsonObject) -> None:
    """Raise WrongKind for what the engine divides by, or makes room by, and no Qwen has."""
    for key, only in (("merge_size", MERGE), ("temporal_patch_size", FRAMES)):
        if at(table, key, int) != only:
            raise WrongKind(key, str(only))
    for key, least in (("image_mean", -math.inf), ("image_std", 0.0)):
        values = list_at(table, key)
        if len(values) != CHANNELS or not all(_is_between(value, least) for value in values):
            raise WrongKind(key, f"a list of {CHANNELS} numbers that can be used")


def _is_between(value: JsonValue, least: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least < value < _MOST_PIXELS
