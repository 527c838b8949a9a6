"""How a checkpoint wants its tokens drawn, from its generation_config.json: what an app starts
from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def of(generation_config: Mapping[str, Any]) -> dict[str, float] | None:
    """The values that it names, in the order of KEYS; temperature 0 where it asks for no sampling;
    None where it says nothing."""
    if generation_config.get("do_sample") is False:
        return {"temperature": 0}
    return {
        key: generation_config[key] for key in KEYS if _number(generation_config.get(key))
    } or None


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value < 1e6
    )
