"""Positions of an ONNX graph: the model builder makes a plain graph, whose tables of cosines and
sines are then the true ones.

The builder knows three ways to scale and asks for keys that configurations leave to their defaults;
the tables are all that a way to scale changes, and one function computes them for the reference and
for every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.errors import bad_input
from packager.json_values import JsonObject
from packager.reference.rope import table
from packager.shape.positions import Positions, not_computed

_ENGINE = "ONNX Runtime"
_GRAPH = "model.onnx"
_DROPPED = (
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "partial_rotary_factor",
)


def refuse_positions(source: Checkpoint, context: int) -> None:
    """Raise PackError (bad input) for positions that a graph of `context` tokens would compute
    otherwise."""
    positions = source.positions
    if positions.fixed_up_to is not None and context > positions.fixed_up_to:
        raise not_computed(
            _ENGINE,
            f"positions ({positions.kind}) that change beyond {positions.fixed_up_to} tokens",
            f"Build with --context {positions.fixed_up_to} or less.",
        )


def plainly_placed(config: Mapping[str, Any], positions: Positions) -> JsonObject:
    """The configuration with plain positions of the same base."""
    return {key: value for key, value in config.items() if key not in _DROPPED} | {
        "rope_theta": positions.theta
    }


def put_positions(built: Path, positions: Positions, context: int) -> None:
    """Write the cosines and sines of `positions` into the graph in the folder `built`, for
    sequences up to `context` tokens.

    Raises PackError (bad input) for a graph whose tables are not where the model builder puts them.
    """
    if positions.plain:
        return
    # Late: onnx is an engine's own package.
    import onnx

    model = onnx.load(str(built / _GRAPH), load_external_data=False)
    constants = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.name in ("cos_cache", "sin_cache")
    }
    if len(constants) != 2:
        raise bad_input(
            "The model builder's graph has its positions elsewhere than expected.",
            "Install the tested version: constraints.txt.",
        )
    rows = constants["cos_cache"].dims[0]
    for tensor, values in zip(
        (constants["cos_cache"], constants["sin_cache"]),
        table(positions, rows, min(rows, context)),
        strict=True,
    ):
        _replace(built, tensor, values)
    # Small tables lie in the graph itself.
    if not all(tensor.external_data for tensor in constants.values()):
        onnx.save(model, str(built / _GRAPH))


def _replace(built: Path, tensor: Any, values: np.ndarray[Any, Any]) -> None:
    import onnx

    if tuple(tensor.dims) != values.shape:
        raise bad_input(
            f"The model builder's {tensor.name} has the shape {list(tensor.dims)} instead of "
            f"{list(values.shape)}.",
            "Report it.",
        )
    data = values.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()
    location = {entry.key: entry.value for entry in tensor.external_data}
    if not location:
        tensor.raw_data = data
        return
    with (built / location["location"]).open("r+b") as file:
        file.seek(int(location.get("offset", 0)))
        file.write(data)
