"""What llama.cpp's graphs of Qwen compute of positions and windows, and the refusal of the rest."""

from __future__ import annotations

import math

from packager.checkpoint import Checkpoint
from packager.shape.positions import Positions, not_computed
from packager.shape.windows import refuse_acting

_ENGINE = "llama.cpp"


def refuse_positions(source: Checkpoint, context: int | None) -> None:
    """Raise PackError (bad input) for a checkpoint whose network llama.cpp would compute otherwise.

    `context` is the longest sequence in tokens; None is all that the model was trained for.
    """
    positions, tokens = source.positions, context or source.shape.context
    if positions.kind in ("llama3", "longrope"):
        raise not_computed(
            _ENGINE,
            f"positions of the type {positions.kind}",
            "Take a recipe of OpenVINO or ONNX Runtime.",
        )
    if positions.kind == "yarn" and not positions.ordinary_ramp:
        ramp = (
            f"beta_fast {positions.beta_fast:g}, beta_slow {positions.beta_slow:g}, truncate "
            f"{str(positions.truncate).lower()}"
        )
        raise not_computed(
            _ENGINE, f"YaRN with {ramp}", "Take a recipe of OpenVINO or ONNX Runtime."
        )
    if positions.kind == "dynamic" and tokens > positions.context:
        raise not_computed(
            _ENGINE,
            f"positions that change beyond {positions.context} tokens",
            f"Build with --context {positions.context}.",
        )
    refuse_acting(_ENGINE, source.windows, tokens)


def attention_factor(positions: Positions) -> float:
    """llama.cpp multiplies cosine and sine by YaRN's own amplitude, and by this besides."""
    return positions.amplitude / (1.0 + 0.1 * math.log(positions.factor))
