"""Positions in three axes: which of time, height and width turns each pair of a head's elements.

Source: transformers 5.5, apply_multimodal_rotary_pos_emb of models/qwen2_vl (one axis behind the
other) and apply_interleaved_mrope of models/qwen3_vl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packager.shape.fields import Fields
from packager.shape.model import Widths
from packager.shape.names import NAMINGS
from packager.shape.write_config import mrope_section

TIME, HEIGHT, WIDTH = 0, 1, 2
AXES = 3
_TABLES = ("rope_scaling", "rope_parameters")
_KEY = "mrope_section"
_HYBRID = [11, 11, 10]
"""What transformers' qwen3_5 takes where config.json is silent."""


def axes_of(
    decoder: Mapping[str, Any], shape: Widths, where: str, turned: int | None = None
) -> tuple[int, ...]:
    """The axis of every pair of a head, by the text decoder's own table of a config.json; the
    proportions of the official checkpoints where it is silent. `turned` elements of a head have a
    position; all where it is not given.

    Raises PackError (exit code 6) naming `where` and the key, for shares that are not those of the
    pairs.
    """
    fields = Fields(decoder, where)
    tables = [fields.table(key) for key in _TABLES if key in fields and not fields.is_empty(key)]
    table = next((each for each in tables if _KEY in each), None)
    pairs = (turned or shape.head_dim) // 2
    silent = mrope_section(shape) if shape.hybrid is None else _HYBRID
    section = silent if table is None else table.listing(_KEY)
    third = NAMINGS[shape.model_type].decoder.startswith("qwen3")
    good = len(section) == AXES and all(type(count) is int and count >= 0 for count in section)
    if table is not None and (not good or sum(section) != pairs):
        raise table.wrong(_KEY, f"is {section!r}, and a head has {pairs} pairs to share out")
    if not third:
        return tuple(axis for axis, count in enumerate(section) for _ in range(count))
    axes = [TIME] * pairs
    for axis in (HEIGHT, WIDTH):
        for pair in range(axis, min(AXES * section[axis], pairs), AXES):
            axes[pair] = axis
    return tuple(axes)
