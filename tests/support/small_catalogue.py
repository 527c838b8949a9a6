"""`python -m tests.support.small_catalogue ARGUMENTS`: qwen-pack with a Qwen3-0.6B of few and narrow
layers and a small vocabulary in its catalogue.

What a page tells people to type then takes seconds instead of minutes: the commands, the choice and
every stage are the same. `make field` types them with the true shape.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from packager.catalog import loader
from packager.catalog.variant import Variant
from packager.cli import main

_read_all = loader.read_all

_NARROW: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B": {
        **{"hidden": 128, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 384},
        "vocab": 2048,
    },
    # Stays the smaller one, with the runtime that the target does not prefer.
    "Qwen/Qwen3.5-0.8B": {"hidden": 128, "layers": 4, "intermediate": 256, "vocab": 2048},
}


def narrowed() -> tuple[Variant, ...]:
    """The variants of the catalogue, two of them smaller."""
    return tuple(
        replace(variant, shape=replace(variant.shape, **_NARROW[variant.repo_id]))
        if variant.repo_id in _NARROW and variant.shape
        else variant
        for variant in _read_all()
    )


if __name__ == "__main__":
    loader.read_all = narrowed  # type: ignore[assignment]
    sys.exit(main())
