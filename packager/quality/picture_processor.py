"""How many tokens a picture gets and where they stand, beside the published processor's rules.

Source: transformers 5.5, smart_resize of models/qwen2_vl/image_processing_qwen2_vl.py and
get_rope_index of models/qwen2_vl.
"""

from __future__ import annotations

import math
from typing import Any

from packager.records import QualityVerdict
from packager.records.quality import PictureQuality
from packager.session import VisionSession

LEAST, MOST = 16, 512
"""Image tokens between which pictures are kept while they are compared: more than the drawn ones
take, so that none of those is resized."""
SETTINGS = {"image_min_tokens": LEAST, "image_max_tokens": MOST}

SIZES = (
    *((9.0, 6.0), (10.3, 4.8), (3.3, 12.6), (15.2, 21.9)),
    *((2.3, 3.1), (1.2, 5.4), (40.7, 30.2), (71.4, 12.3)),
)
"""Width and height in image tokens: some that are whole or nearly so, some that are made larger,
some that are made smaller. None lies in the middle between two, where rounding is a matter of
taste."""
GRIDS = ((9, 6), (4, 13), (7, 7))
"""Columns and rows of pictures whose tokens' positions are compared."""


def published_tokens(width: int, height: int, side: int, least: int, most: int) -> int:
    """Tokens of a picture of so many pixels between `least` and `most`; `side` is that of a token
    in pixels."""
    columns, rows = (round(each / side) for each in (width, height))
    area = side * side
    if columns * rows > most:
        shrink = math.sqrt(width * height / (most * area))
        columns, rows = (max(1, math.floor(each / shrink / side)) for each in (width, height))
    elif columns * rows < least:
        grow = math.sqrt(least * area / (width * height))
        columns, rows = (math.ceil(each * grow / side) for each in (width, height))
    return columns * rows


# Any: figures that go to the manifest, whose type checks them.
def same(model: VisionSession, side: int) -> dict[str, Any]:
    """`sizes`, `token_counts` and `positions` of PictureQuality, of a session with SETTINGS."""
    sizes = [(round(width * side), round(height * side)) for width, height in SIZES]
    counts = [
        model.image_tokens(*size) == published_tokens(*size, side, LEAST, MOST) for size in sizes
    ]
    return {
        "sizes": len(sizes),
        "token_counts": sum(counts) / len(counts),
        "positions": _positions(model, side),
    }


def _positions(model: VisionSession, side: int) -> float | None:
    import numpy as np

    from packager.reference.seen import places

    good, total = 0, 0
    for columns, rows in GRIDS:
        placed = model.image_places(columns, rows, side)
        if placed is None:
            return None
        wanted = places(0, rows, columns, 1)
        total += wanted.shape[1]
        if placed.shape == wanted.shape:
            good += int(np.all(placed == wanted, axis=0).sum())
    return good / total


def rows(found: PictureQuality) -> tuple[QualityVerdict, ...]:
    """One row per rule that was looked at; all must hold."""
    return tuple(
        QualityVerdict(
            rule=f"image_{rule}", limit=1.0, measured=measured, at_least=True, passed=measured >= 1
        )
        for rule in ("token_counts", "positions")
        if (measured := getattr(found, rule)) is not None
    )
