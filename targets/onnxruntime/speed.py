"""How fast ONNX Runtime is against a device's rates, by the width of the weights and, where it was
measured, by the length of their blocks. The figures are in speed.toml."""

from __future__ import annotations

from pathlib import Path

from packager.device.target import BACK_ENDS
from packager.predict.forecast import Speed
from packager.recipe import Recipe
from packager.shape import Shape
from targets.onnxruntime import data
from targets.speed_table import on_a_gpu, rows

FILE = Path(__file__).with_name("speed.toml")


def speed(shape: Shape, recipe: Recipe, isa: str) -> Speed:
    """By the width of the weights and their blocks, on a processor; a GPU's rates are taken as its
    file has them."""
    if isa.partition(" ")[0] in BACK_ENDS:
        return on_a_gpu(shape)
    quantization = data.settings_of(recipe).layers
    kind = "float" if quantization is None else f"{quantization.bits} bits"
    if quantization is not None and isa.partition(" ")[0] == "x86_64":
        longer = f"{kind}, blocks of {quantization.block}"
        kind = longer if longer in rows(FILE) else kind
    row = rows(FILE)[kind]
    return Speed(row.bandwidth, row.compute, row.operations(shape), row.attention)
