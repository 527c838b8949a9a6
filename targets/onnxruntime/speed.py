"""How fast ONNX Runtime is against a device's rates, by the width of the weights. The figures are
in speed.toml."""

from __future__ import annotations

from pathlib import Path

from packager.predict.forecast import Speed
from packager.recipe import Recipe
from packager.shape import Shape
from targets.onnxruntime import data
from targets.speed_table import rows

FILE = Path(__file__).with_name("speed.toml")


def speed(shape: Shape, recipe: Recipe, isa: str) -> Speed:
    """By the width of the weights."""
    quantization = data.settings_of(recipe).quantization
    row = rows(FILE)["float" if quantization is None else f"{quantization.bits} bits"]
    return Speed(row.bandwidth, row.compute, row.operations_per_layer * shape.layers, row.attention)
