"""Rotary positions of a graph: frequencies in float32, and the scaling that openvino-genai's reader
passes over.

The reader computes plain frequencies whatever config.json says of scaling, and saves them in
float16 beside 16-bit weights, where an angle at position 4096 is off by up to two radians.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from packager.errors import bad_input

Frequencies = npt.NDArray[np.float32]


def frequencies(rope: dict[str, Any], theta: float, width: int) -> tuple[Frequencies, float]:
    """Angle per position of every pair of a head `width` wide, and the factor on cosine and sine.

    `rope` is config.json's `rope_parameters` or `rope_scaling`. Sources: RoFormer (arXiv
    2104.09864), YaRN (arXiv 2309.00071). Raises PackError (bad input) for a scaling other than
    `linear` and `yarn`.
    """
    exponents = np.arange(0, width, 2, dtype=np.float64) / width
    plain = theta**-exponents
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return plain.astype(np.float32), 1.0
    if kind == "linear":
        return (plain / _number(rope, "factor")).astype(np.float32), 1.0
    if kind == "yarn":
        return _yarn(rope, theta, width, plain)
    raise bad_input(
        "config.json scales positions in a way that is not built for OpenVINO here (rope_type "
        f"{kind!r}).",
        "default, linear and yarn are; llama.cpp may know more.",
    )


def _yarn(
    rope: dict[str, Any], theta: float, width: int, plain: npt.NDArray[np.float64]
) -> tuple[Frequencies, float]:
    """Fast pairs as trained, slow ones stretched, a ramp between."""
    factor, trained = _number(rope, "factor"), _number(rope, "original_max_position_embeddings")

    def pair_that_turns(times: float) -> float:
        """The pair that makes so many turns within the trained context."""
        return width * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(float(rope.get("beta_fast") or 32))), 0)
    high = min(math.ceil(pair_that_turns(float(rope.get("beta_slow") or 1))), width - 1)
    # A ramp of no length would divide by zero.
    ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0, 1)
    mixed = plain * (1 - ramp) + plain / factor * ramp
    given = rope.get("attention_factor")
    attention = (
        float(given) if given is not None else 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    )
    return mixed.astype(np.float32), attention


def _number(rope: dict[str, Any], key: str) -> float:
    value = rope.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise bad_input(
            f"config.json: {key} of the position scaling is {value!r} where a positive number is "
            "needed.",
            "Take the model's own.",
        )
    return float(value)


def put_positions(model: Any, rope: dict[str, Any], theta: float, width: int) -> None:
    """Replace the frequencies of an openvino.Model that openvino-genai made, and scale cosine and
    sine where the model wants it.

    Raises PackError (bad input) when the graph is built otherwise than the reader builds it.
    """
    # Late: it loads the engine.
    from openvino import op, opset13

    values, factor = frequencies(rope, theta, width)
    turns = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Cos", "Sin")]
    shape = [1, width // 2, 1]
    found = (
        {id(node): node for node in (_constant_above(turn, shape) for turn in turns)}
        if len(turns) == 2
        else {}
    )
    if None in found.values() or not found:
        raise bad_input(
            "The graph that openvino-genai wrote has its positions elsewhere than expected.",
            "Install the tested version.",
        )
    constant = op.Constant(values.reshape(shape))
    for node in found.values():
        # Behind the widening of a float16 constant, so that float32 stays float32.
        widened = next((each.get_node() for each in node.output(0).get_target_inputs()), None)
        old = widened if widened is not None and widened.get_type_name() == "Convert" else node
        old.output(0).replace(constant.output(0))
    if factor != 1.0:
        for turn in turns:
            readers = turn.output(0).get_target_inputs()
            scaled = opset13.multiply(turn, op.Constant(np.array(factor, np.float32)))
            for reader in readers:
                reader.replace_source_output(scaled.output(0))


def _constant_above(node: Any, shape: list[int]) -> Any:
    """The constant of that shape that a node is computed from; None where there is none."""
    waiting, seen = [node], 0
    while waiting and seen < 64:
        seen += 1
        here = waiting.pop(0)
        if here.get_type_name() == "Constant" and list(here.get_output_shape(0)) == shape:
            return here
        waiting += [each.get_source_output().get_node() for each in here.inputs()]
    return None
