"""Sliding windows: how many tokens back the attention of every layer sees.

Which layers have one is decided by the model type. Source: the configuration and modelling files of
transformers 5.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packager.shape.fields import Fields
from packager.shape.model import Widths
from packager.shape.names import FIRST_GENERATION
from packager.shape.positions import not_computed
from packager.shape.tensors import naming_of

Windows = tuple[int | None, ...]
"""One entry per layer: the tokens a query sees, its own included; None for all."""

_FULL, _SLIDING = "full_attention", "sliding_attention"
_FIRST_WITHOUT = 28
_DEFAULT_WINDOW = 4096


def windows_of(config: Mapping[str, Any], shape: Widths, where: str) -> Windows:
    """The windows that the text decoder's own table of a config.json describes.

    Raises PackError (exit code 6) naming `where` and the key for kinds of layers that the model
    type does not have, and for layers with a window where the config switches windows off, which
    transformers cannot compute either.
    """
    decoder = naming_of(shape).decoder
    everything: Windows = (None,) * shape.layers
    if shape.hybrid is not None or decoder == FIRST_GENERATION:
        return everything
    fields = Fields(config, where)
    wanted = fields.flag("use_sliding_window", False) and not fields.is_null("sliding_window")
    window = fields.count("sliding_window", _DEFAULT_WINDOW) if wanted else None
    if decoder == "qwen3_moe":
        # It has no kinds of layers: with a window all of them have it.
        return (window,) * shape.layers
    kinds = _kinds(fields, shape, decoder, window is not None)
    if window is None and _SLIDING in kinds:
        raise fields.wrong(
            "layer_types", "names layers with a sliding window, but use_sliding_window is not true"
        )
    return tuple(window if kind == _SLIDING else None for kind in kinds)


def _kinds(fields: Fields, shape: Widths, decoder: str, sliding: bool) -> list[str]:
    kinds = fields.listing("layer_types")
    if kinds:
        if len(kinds) != shape.layers or not set(kinds) <= {_FULL, _SLIDING}:
            raise fields.wrong("layer_types", f"is not {shape.layers} times {_FULL} or {_SLIDING}")
        return kinds
    first = fields.whole("max_window_layers", _FIRST_WITHOUT)
    if decoder == "qwen2_moe":
        # Every other one of the first layers.
        chosen = [layer % 2 == 0 and layer < first for layer in range(shape.layers)]
    else:
        chosen = [layer >= first for layer in range(shape.layers)]
    return [_SLIDING if sliding and each else _FULL for each in chosen]


def acting(windows: Windows, context: int) -> int | None:
    """The smallest window that hides anything from a sequence of `context` tokens; None where none
    does."""
    return min(
        (window for window in windows if window is not None and window < context), default=None
    )


def refuse_acting(engine: str, windows: Windows, context: int) -> None:
    """Raise PackError (exit code 6) where a window hides anything from `context` tokens: `engine`
    computes none."""
    window = acting(windows, context)
    if window is not None:
        raise not_computed(
            engine,
            f"a sliding window of {window} tokens",
            f"Build with --context {window} or less, where the window hides nothing.",
        )
