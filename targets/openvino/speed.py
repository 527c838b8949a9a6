"""How fast OpenVINO is against a device's rates, by the width of the weights. The figures are in
speed.toml."""

from __future__ import annotations

from math import inf
from pathlib import Path

from packager.device.target import BACK_ENDS
from packager.json_values import at
from packager.predict.forecast import Speed
from packager.recipe import Recipe
from packager.shape import Shape
from targets.openvino.data import compression_of
from targets.speed_table import on_a_gpu, rows

FILE = Path(__file__).with_name("speed.toml")
_BLOCKS = {"Q4_0": 4, "Q8_0": 8}
_DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8")


def speed(shape: Shape, recipe: Recipe, isa: str) -> Speed:
    """By the width of the weights; on a processor without instructions for sums of 8-bit products,
    as llama.cpp.

    The figures are those of processors; a GPU's or NPU's rates are taken as its file has them.
    """
    if isa.partition(" ")[0] in BACK_ENDS:
        return on_a_gpu(shape)
    compression = compression_of(recipe)
    bits = 16
    if compression is not None and "repack" in compression:
        bits = 4
    elif compression is not None:
        named = "bits" in compression
        bits = at(compression, "bits", int) if named else _BLOCKS[at(compression, "blocks", str)]
    known = rows(FILE)
    row = known[f"{bits} bits"]
    most = inf if any(word in isa for word in _DOT_PRODUCTS) else 1.0
    compute = min(most, row.compute)
    # Its weights are in 8 bits beside a decoder in 4.
    sight_or_sound = "sound" if shape.audio is not None else "tower"
    tower = min(most, known[f"{sight_or_sound}, {max(8, bits)} bits"].compute)
    return Speed(row.bandwidth, compute, row.operations(shape), row.attention, tower=tower)
