"""What a user adds to a llama.cpp recipe, checked as far as it can be before a checkpoint is there.
Imports no engine."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from packager.errors import bad_input, usage
from packager.json_values import JsonObject
from packager.names import did_you_mean
from packager.plan.additions import Additions, file_facts
from packager.recipe import IMATRIX, TYPES, Recipe
from targets.gguf.presets import TENSOR_TYPES

CALIBRATED_AS = "Q8_0"
"""The form in which the model runs while importances are collected: half the memory of 16 bits,
nearly the same activations."""

CHUNK_TOKENS = 512
"""Tokens that are computed at once, each chunk from an empty cache: the default of llama.cpp's own
tool."""

_MAGICS = (b"GGUF", b"PK\x03\x04")


def checked(additions: Additions) -> Additions:
    """The additions as they came. Raises PackError: usage for a bad pattern or type, bad input for
    a text that is none."""
    for pattern, kind in additions.tensor_types.items():
        if kind not in TENSOR_TYPES:
            raise usage(
                f"A tensor cannot become {kind!r}.{did_you_mean(kind, TENSOR_TYPES)}",
                f"Known: {', '.join(TENSOR_TYPES)}.",
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise usage(
                f"{pattern!r} is not a valid regular expression ({error}).",
                r"For example: token_embd\.weight",
            ) from None
    if additions.calibration is not None:
        _check_text(additions.calibration)
    return additions


def carried(recipe: Recipe, additions: Additions) -> Recipe:
    """The recipe with the additions in its id and settings: names and digests, no paths."""
    if additions.imatrix is not None:
        recipe = recipe.added(IMATRIX, imatrix=_facts(additions.imatrix))
    if additions.calibration is not None:
        recipe = recipe.added(
            IMATRIX, calibration={**_facts(additions.calibration), "chunk_tokens": CHUNK_TOKENS}
        )
    if additions.tensor_types:
        # Late: most recipes carry none.
        import hashlib

        types = dict(additions.tensor_types)
        # The order counts: the first pattern that hits decides.
        digest = hashlib.sha256(json.dumps(list(types.items())).encode()).hexdigest()[:8]
        recipe = recipe.added(f"{TYPES}{digest}", tensor_types=types)
    return recipe


@cache
def _facts(path: Path) -> JsonObject:
    return file_facts(path)


def _check_text(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if start.startswith(_MAGICS) or b"\0" in start:
        raise bad_input(
            f"{path} is not text that can be calibrated with.",
            "Give a plain text in UTF-8, or an importance matrix with --imatrix.",
        )
    if not start.strip():
        raise bad_input(
            f"{path} is empty.", "Give a plain text in UTF-8 of a few hundred kilobytes."
        )
